"""Agents over real UDP: who answers, who is silent, whose port is closed."""

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from noodle_ray.actors.probes import Answering, Pulse, Watching, is_open, probe
from noodle_ray.nodes.peers import Endpoint, Observation, Peer

KEY = b"k" * 32
HOST = "127.0.0.1"


class Target:
    """A node's agent, and a listening port in the place of its raylet."""

    def __init__(self) -> None:
        self.pulse: Pulse = "beats"
        self.keys = [KEY]

    async def start(self) -> Peer:
        self.raylet = await asyncio.start_server(lambda reader, writer: writer.close(), HOST, 0)
        self.agent, port = await Answering.start("target", HOST, lambda: self.keys, lambda: self.pulse)
        return Peer("target", Endpoint(HOST, port, self.raylet.sockets[0].getsockname()[1]))

    async def stop(self) -> None:
        self.agent.close()
        self.raylet.close()


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    made = Target()
    yield made
    await made.stop()


class Watcher:
    """An agent that watches with short times, and what it told."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[Observation] = asyncio.Queue()
        self.watching = Watching(0.02, 0.3, lambda seen: [self.told.put_nowait(one) for one in seen] and None)

    async def next(self) -> Observation:
        async with asyncio.timeout(5):
            return await self.told.get()


@contextlib.asynccontextmanager
async def watching(peer: Peer) -> AsyncIterator[Watcher]:
    watcher = Watcher()
    await watcher.watching.watch([peer], KEY)
    running = asyncio.create_task(watcher.watching.run())
    yield watcher
    running.cancel()
    watcher.watching.close()
    await asyncio.sleep(0)


async def test_one_that_stops_answering_is_silent_and_then_heard_again(target: Target) -> None:
    async with watching(await target.start()) as watcher:
        await asyncio.sleep(0.5)
        assert watcher.told.empty()
        target.pulse = "stopped"
        seen = await watcher.next()
        assert (seen.node_id, seen.what) == ("target", "silent")
        assert seen.silent_for_s >= 0.3
        target.pulse = "beats"
        while seen.what == "silent":
            seen = await watcher.next()
        assert seen.what == "heard"


async def test_a_closed_agent_is_told_from_a_closed_raylet(target: Target) -> None:
    async with watching(await target.start()) as watcher:
        await asyncio.sleep(0.1)
        target.pulse = "gone"
        assert (await watcher.next()).what == "agent gone"
        target.raylet.close()
        await target.raylet.wait_closed()
        seen = await watcher.next()
        while seen.what == "agent gone":
            seen = await watcher.next()
        assert seen.what == "gone"


async def test_a_probe_reaches_whoever_answers_and_no_other(target: Target) -> None:
    peer = await target.start()
    assert await probe(peer, KEY, 2.0)
    assert not await probe(peer, b"x" * 32, 0.3)
    target.keys = [b"x" * 32, KEY]  # a new manager's key, and the one before
    assert await probe(peer, KEY, 2.0)
    target.pulse = "stopped"
    assert not await probe(peer, KEY, 0.3)


async def test_only_a_refusal_says_that_a_port_is_closed(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = await target.start()
    assert await is_open(peer.endpoint)
    target.raylet.close()
    await target.raylet.wait_closed()
    assert not await is_open(peer.endpoint)

    async def hang(*_: Any) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(asyncio, "open_connection", hang)
    monkeypatch.setattr("noodle_ray.actors.probes.CONNECT_TIMEOUT_S", 0.05)
    assert await is_open(peer.endpoint)


def test_a_raylet_that_is_stopped_is_told_from_one_that_is_gone() -> None:
    raylet = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True)
    assert raylet.stdout is not None
    said = [raylet.stdout.readline().strip()]
    raylet.send_signal(signal.SIGSTOP)
    said.append(raylet.stdout.readline().strip())
    raylet.send_signal(signal.SIGCONT)
    said.append(raylet.stdout.readline().strip())
    raylet.kill()
    said.append(raylet.stdout.readline().strip())
    raylet.wait()
    raylet.stdout.close()
    assert said == ["beats", "stopped", "beats", "gone"]


CHILD = """
import os, time
if os.fork():
    time.sleep(60)
from noodle_ray.actors.probes import Raylet
raylet, last, end = Raylet(), "", time.monotonic() + 30
while last != "gone" and time.monotonic() < end:
    if (now := raylet.pulse()) != last:
        last = now
        print(now, flush=True)
    time.sleep(0.01)
"""
