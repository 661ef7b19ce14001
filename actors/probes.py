"""Probes: agents answer each other over UDP, apart from Ray, whose calls hang when a host does."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, cast

from noodle_ray.nodes.peers import Endpoint, Observation, Peer, PeerWatch
from noodle_ray.nodes.probe_messages import ProbeMessage, unpack

PROBE_PAUSE_S = 0.15
"""Between two probes of a suspected node."""

CONNECT_TIMEOUT_S = 0.5


Pulse = Literal["beats", "stopped", "gone"]


class Answering(asyncio.DatagramProtocol):
    """Answers probes of this node while its raylet runs; closes its port when that is gone.

    `keys`: all that are valid now.
    """

    def __init__(self, node_id: str, keys: Callable[[], Iterable[bytes]], pulse: Callable[[], Pulse]) -> None:
        self._node_id, self._keys, self._pulse = node_id, keys, pulse

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # which it is, though not by its class

    def datagram_received(self, data: bytes, addr: tuple[str | int, int]) -> None:
        for key in self._keys():
            probe = unpack(data, self._node_id, key)
            if probe is not None and probe.kind == "probe":
                self._answer(probe.answer().pack(key), addr)

    def _answer(self, answer: bytes, addr: tuple[str | int, int]) -> None:
        match self._pulse():
            case "beats":
                self._transport.sendto(answer, addr)
            case "gone":  # this process ends soon too, but not soon enough
                self._transport.close()

    @classmethod
    async def start(
        cls, node_id: str, address: str, keys: Callable[[], Iterable[bytes]], pulse: Callable[[], Pulse]
    ) -> tuple[asyncio.DatagramTransport, int]:
        """Listens on any free port of the address; the transport and the port."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: cls(node_id, keys, pulse), local_addr=(address, 0))
        return transport, int(transport.get_extra_info("sockname")[1])


class Asking(asyncio.DatagramProtocol):
    """Sends probes to one peer, and tells of answers and of a closed port."""

    def __init__(self, peer: Peer, key: bytes, answered: Callable[[], None], refused: Callable[[], None]) -> None:
        self._peer, self._key = peer, key
        self._answered, self._refused = answered, refused
        self._number = secrets.randbits(63)
        self._first = self._number
        self._transport: asyncio.DatagramTransport | None = None

    @classmethod
    async def start(cls, peer: Peer, key: bytes, answered: Callable[[], None], refused: Callable[[], None]) -> Asking:
        loop = asyncio.get_running_loop()
        address = (peer.endpoint.address, peer.endpoint.port)
        # Connected, so that the peer's kernel can tell us that nobody listens there any more.
        _, asking = await loop.create_datagram_endpoint(lambda: cls(peer, key, answered, refused), remote_addr=address)
        return asking

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # which it is, though not by its class

    def send(self) -> None:
        assert self._transport is not None
        self._number += 1
        self._transport.sendto(ProbeMessage("probe", self._peer.node_id, self._number).pack(self._key))

    def datagram_received(self, data: bytes, addr: tuple[str | int, int]) -> None:
        answer = unpack(data, self._peer.node_id, self._key)
        if answer is not None and answer.kind == "answer" and self._first < answer.number <= self._number:
            self._answered()

    def error_received(self, exc: Exception) -> None:
        if isinstance(exc, ConnectionRefusedError):
            self._refused()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Watching:
    """Probes the peers of this agent at an interval, and tells what is worth telling."""

    def __init__(
        self, interval_s: float, suspect_after_s: float, tell: Callable[[tuple[Observation, ...]], None]
    ) -> None:
        self._interval_s, self._tell = interval_s, tell
        self._watch = PeerWatch(suspect_after_s)
        self._asking: dict[str, Asking] = {}
        self._checking: set[asyncio.Task[None]] = set()

    async def watch(self, peers: Iterable[Peer], key: bytes) -> None:
        """Watches these from now on."""
        self._watch.watch(peers, _now())
        self.close()
        for peer in self._watch.peers:
            self._asking[peer.node_id] = await self._ask(peer, key)

    def close(self) -> None:
        """Asks nobody any more."""
        for asking in self._asking.values():
            asking.close()
        self._asking = {}

    async def _ask(self, peer: Peer, key: bytes) -> Asking:
        def answered() -> None:
            self._say(self._watch.answered(peer.node_id, _now()))

        def refused() -> None:
            check = asyncio.get_running_loop().create_task(self._look_closer(peer))
            self._checking.add(check)
            check.add_done_callback(self._checking.discard)

        return await Asking.start(peer, key, answered, refused)

    async def _look_closer(self, peer: Peer) -> None:
        """Its agent is gone: is its raylet too?"""
        gone = not await is_open(peer.endpoint)
        self._say(self._watch.closed(peer.node_id, gone, _now()))

    def _say(self, seen: Observation | None) -> None:
        if seen is not None:
            self._tell((seen,))

    async def run(self) -> None:
        while True:
            for node_id in self._watch.due(_now(), self._interval_s):
                if node_id in self._asking:  # its socket may be on the way yet
                    self._asking[node_id].send()
            seen = self._watch.look(_now())
            if seen:
                self._tell(seen)
            await asyncio.sleep(self._interval_s / 2)


async def is_open(endpoint: Endpoint) -> bool:
    """Whether its raylet's port may be open: only a refusal says that it is not."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(endpoint.address, endpoint.raylet_port)
    except ConnectionRefusedError:
        return False
    except (OSError, TimeoutError):
        return True
    writer.close()
    return True


async def probe(peer: Peer, key: bytes, for_s: float) -> bool:
    """Whether the peer answers within that time, asked again and again."""
    reached = asyncio.Event()
    asking = await Asking.start(peer, key, reached.set, lambda: None)
    try:
        async with asyncio.timeout(for_s):
            while not reached.is_set():
                asking.send()
                with_pause = asyncio.get_running_loop().create_task(reached.wait())
                await asyncio.wait([with_pause], timeout=PROBE_PAUSE_S)
                with_pause.cancel()
    except TimeoutError:
        return False
    finally:
        asking.close()
    return True


class Raylet:
    """The raylet that started this process: whether it is there, and whether it runs."""

    def __init__(self) -> None:
        self._pid = os.getppid()

    def end(self) -> None:
        """Asks it to end in good order."""
        if self.pulse() != "gone":
            os.kill(self._pid, signal.SIGTERM)

    def pulse(self) -> Pulse:
        if os.getppid() != self._pid:
            return "gone"
        try:
            status = Path(f"/proc/{self._pid}/stat").read_bytes()
        except FileNotFoundError:  # no such files on this system: its presence must do
            return "beats"
        state = status[status.rindex(b")") + 2 :][:1]
        return "gone" if state in b"ZX" else "stopped" if state in b"Tt" else "beats"


def host_of(address: str) -> str:
    """An address to listen on: the node's own, where this machine has it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attempt:
        try:
            attempt.bind((address, 0))
        except OSError:
            return "0.0.0.0"  # noqa: S104  (an address that others translate to this machine's)
    return address


def _now() -> float:
    return asyncio.get_running_loop().time()
