"""Module hosts on a real Ray, without a registry: streams, runners, state, and how they retire, resume and end."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import serve

from noodle_ray.actors.names import MODULE_APPS
from noodle_ray.actors.ray_errors import await_ref
from noodle_ray.actors.warm_hosts import Host, kill_host, start_host
from noodle_ray.errors import CallInterrupted, Conflict, InvalidInput, ModuleFailed, NoodleError, NotFound, Unavailable
from noodle_ray.modules.archive import write_entries
from noodle_ray.modules.artefact import content_hash
from noodle_ray.modules.call_route import Retired
from noodle_ray.modules.manifest import Manifest, RunnerKind

pytestmark = pytest.mark.ray

KINDS: list[RunnerKind] = ["in-host", "sandboxed", "serve"]
_numbers = itertools.count(1)

CODE = """
import asyncio, os, time

def add(a, b=1): return a + b
async def wait(value): await asyncio.sleep(0.01); return value
def sleep(seconds): time.sleep(seconds); return "slept"
def pid(): return os.getpid()
def raises(): raise ValueError("no")
def numbers(upto):
    yield from range(upto)
made = []
def counted(upto):
    for number in range(upto):
        made.append(number)
        yield number
def how_many(): return len(made)
async def slowly(upto):
    for number in range(upto):
        await asyncio.sleep(0.05)
        yield number
def is_well(): return True
"""

STATEFUL = """
class Counter:
    def __init__(self): self.count = 0
    def up(self): self.count += 1; return self.count
    def count_to(self, upto):
        for self.count in range(upto): yield self.count
    def fails(self): self.count += 1; raise ValueError("no")
    def export_state(self): return self.count
    def import_state(self, state, from_version): self.count = state
"""


@pytest.fixture(scope="module")
def cache_dir() -> Iterator[str]:
    before = {name: os.environ.get(name) for name in ("RAY_TMPDIR", "RAY_AUTH_MODE")}
    with tempfile.TemporaryDirectory(prefix="nr", ignore_cleanup_errors=True) as folder:
        (Path(folder) / "ray").mkdir()
        os.environ |= {"RAY_TMPDIR": str(Path(folder) / "ray"), "RAY_AUTH_MODE": "disabled"}
        ray.init(num_cpus=2, object_store_memory=80 * 2**20, include_dashboard=False, log_to_driver=False)
        serve.start(proxy_location="Disabled")
        yield str(Path(folder) / "cache")
        serve.shutdown()
        ray.shutdown()
    for name, value in before.items():
        os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


class Keeper:
    """Keeps the states of hosts, as the registry does."""

    def __init__(self) -> None:
        self.kept: list[tuple[int, bytes]] = []
        self.is_back = asyncio.Event()
        self.is_back.set()
        self._tasks: list[asyncio.Task[None]] = []

    def follow(self, handle: Any, epoch: int, problem: NoodleError | None = None) -> None:
        self._tasks.append(asyncio.ensure_future(self._follow(handle, epoch, problem)))

    async def _follow(self, handle: Any, epoch: int, problem: NoodleError | None) -> None:
        number = 0
        while True:
            number, state = await await_ref(handle.next_state.remote(number, problem))
            await self.is_back.wait()
            if problem is None:
                self.kept.append((epoch, state))

    def end(self) -> None:
        for task in self._tasks:
            task.cancel()


@pytest.fixture
async def keeper() -> AsyncIterator[Keeper]:
    keeper = Keeper()
    yield keeper
    keeper.end()


class Hosts:
    """Starts hosts with modules in them."""

    def __init__(self, cache_dir: str) -> None:
        self._cache_dir = cache_dir
        self.started: list[Host] = []

    async def empty(self) -> Any:
        host = await start_host(self._cache_dir, False, {"num_cpus": 0})
        self.started.append(host)
        return host.handle

    async def load(self, code: str, *, epoch: int = 1, class_name: str = "", name: str = "", **manifest: Any) -> Any:
        handle = await self.empty()
        file = f"hosted_{next(_numbers)}"
        read = Manifest.parse(
            {
                "name": name or file,
                "version": f"{epoch}.0",
                "entry_point": f"{file}:{class_name}" if class_name else file,
                **manifest,
            }
        )
        archive = write_entries({f"{file}.py": code.encode()})
        artefact = (read.name, content_hash(archive), archive)
        stages = await await_ref(handle.load.remote([artefact], read))
        assert stages.keys() == {"unpack", "import"}
        return handle


@pytest.fixture
async def hosts(cache_dir: str) -> AsyncIterator[Hosts]:
    hosts = Hosts(cache_dir)
    yield hosts
    for host in hosts.started:
        kill_host(host.handle)
        await host.death


async def call(handle: Any, function: str, *args: Any, pinned: bool = False, **kwargs: Any) -> Any:
    return await await_ref(handle.call.remote(function, list(args), kwargs, pinned=pinned))


async def stream(handle: Any, function: str, *args: Any, pinned: bool = False) -> list[Any]:
    items = handle.stream.options(num_returns="streaming").remote(function, list(args), {}, pinned=pinned)
    return [await await_ref(ref) async for ref in items]


async def until(holds: Callable[[], Awaitable[bool]], within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        while not await holds():  # noqa: ASYNC110 - what is waited for is in another process
            await asyncio.sleep(0.05)


class TestRunners:
    @pytest.mark.parametrize("kind", KINDS)
    async def test_calls_and_streams(self, hosts: Hosts, kind: RunnerKind) -> None:
        handle = await hosts.load(CODE, runner=kind, health_check="is_well")
        await await_ref(handle.check.remote())
        assert await call(handle, "add", 1, b=2) == 3
        assert await asyncio.gather(*(call(handle, "wait", number) for number in range(50))) == list(range(50))
        assert await stream(handle, "numbers", 5) == [0, 1, 2, 3, 4]
        assert await stream(handle, "slowly", 3) == [0, 1, 2]
        same = await call(handle, "pid") == (await await_ref(handle.ping.remote()))["pid"]
        assert same == (kind == "in-host")
        await await_ref(handle.close.remote())

    @pytest.mark.parametrize("kind", KINDS)
    async def test_errors(self, hosts: Hosts, kind: RunnerKind) -> None:
        handle = await hosts.load(CODE, runner=kind)
        with pytest.raises(NotFound, match="known: add, counted, how_many, is_well, numbers"):
            await call(handle, "nothing")
        with pytest.raises(InvalidInput, match="missing a required argument: 'a'"):
            await call(handle, "add")
        with pytest.raises(ModuleFailed, match="ValueError: no") as failed:
            await call(handle, "raises")
        assert "in raises" in failed.value.trace
        with pytest.raises(ModuleFailed, match="stream it"):
            await call(handle, "numbers", 1)
        with pytest.raises(ModuleFailed, match="call it"):
            await stream(handle, "pid")
        with pytest.raises(InvalidInput, match="missing a required argument: 'upto'"):
            await stream(handle, "numbers")
        stats = await await_ref(handle.stats.remote())
        assert (stats.answered, stats.failed, stats.in_flight) == (0, 3, 0)
        await await_ref(handle.close.remote())

    @pytest.mark.parametrize("kind", KINDS)
    async def test_a_module_that_cannot_be_loaded(self, hosts: Hosts, kind: RunnerKind) -> None:
        with pytest.raises(ModuleFailed, match="ZeroDivisionError"):
            await hosts.load("1 / 0", runner=kind)

    async def test_a_host_whose_sandboxed_process_dies_ends_too(self, hosts: Hosts) -> None:
        handle = await hosts.load(CODE, runner="sandboxed")
        pid = await call(handle, "pid")
        running = asyncio.ensure_future(call(handle, "sleep", 60))
        await asyncio.sleep(0.2)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ModuleFailed, match=r"its process ended \(signal SIGKILL\)"):
            await running
        async with asyncio.timeout(10):
            await hosts.started[0].death

    async def test_a_killed_host_leaves_no_process_and_no_application(self, hosts: Hosts) -> None:
        sandboxed = await hosts.load(CODE, runner="sandboxed")
        child = await call(sandboxed, "pid")
        served = await hosts.load(CODE, runner="serve", name="served")
        assert await asyncio.to_thread(applications, "served")
        for host in hosts.started:
            kill_host(host.handle)

        async def all_are_gone() -> bool:
            return not await asyncio.to_thread(applications, "served") and not Path(f"/proc/{child}").exists()  # noqa: ASYNC240

        await until(all_are_gone)
        with pytest.raises(Unavailable):
            await call(served, "pid")

    async def test_what_died_with_its_host_is_not_loaded_again(self, hosts: Hosts, tmp_path: Path) -> None:
        """As when a node dies: Serve starts the replica anew when the node is back, but for nobody."""
        loads = tmp_path / "loads"
        code = f"with open({str(loads)!r}, 'a') as file: file.write('loaded ')\n{CODE}"
        served = await hosts.load(code, runner="serve", name="once")
        os.kill(await call(served, "pid"), signal.SIGKILL)
        kill_host(hosts.started[0].handle)

        async def is_gone() -> bool:
            return not await asyncio.to_thread(applications, "once")

        await until(is_gone)
        assert loads.read_text() == "loaded "

    async def test_a_closed_host_leaves_no_replica(self, hosts: Hosts) -> None:
        """Serve would keep it for half a minute."""
        served = await hosts.load(CODE, runner="serve", name="closed")
        replica = await call(served, "pid")
        await await_ref(served.close.remote())

        async def has_ended() -> bool:
            return not Path(f"/proc/{replica}").exists()  # noqa: ASYNC240

        await until(has_ended, within_s=10)
        assert "STARTING" not in await states_until_gone("closed")

    async def test_nobody_starts_again_what_its_host_gave_up(self, hosts: Hosts) -> None:
        """Serve would, at its next look, which is seconds away: a host with another replica replaces this one."""
        served = await hosts.load(CODE, runner="serve", name="given-up")
        os.kill(await call(served, "pid"), signal.SIGKILL)
        assert "STARTING" not in await states_until_gone("given-up")
        await hosts.started[0].death


def applications(module: str) -> list[str]:
    """The Serve applications that there are for the module."""
    return [name for name in serve.status().applications if name.startswith(f"{MODULE_APPS}{module}-")]


async def states_until_gone(module: str) -> set[str]:
    """The states that replicas of the module's applications are seen in until none is left."""
    seen: set[str] = set()

    async def is_gone() -> bool:
        applications = (await asyncio.to_thread(serve.status)).applications
        mine = [one for name, one in applications.items() if name.startswith(f"{MODULE_APPS}{module}-")]
        seen.update(state for one in mine for each in one.deployments.values() for state in each.replica_states)
        return not mine

    await until(is_gone)
    return seen


class TestHost:
    async def test_an_empty_one(self, hosts: Hosts) -> None:
        handle = await hosts.empty()
        for asked in (handle.call.remote("x", [], {}), handle.check.remote(), handle.export_state.remote()):
            with pytest.raises(Unavailable, match="this host has no module yet"):
                await await_ref(asked)
        await await_ref(handle.close.remote())

    async def test_takes_one_module(self, hosts: Hosts) -> None:
        handle = await hosts.load(CODE)
        with pytest.raises(Conflict, match=r"has hosted-\d+ already"):
            manifest = Manifest(name="a", version="1", entry_point="a")
            await await_ref(handle.load.remote([("a", "0", b"")], manifest))

    async def test_retires_and_resumes(self, hosts: Hosts) -> None:
        handle = await hosts.load(CODE)
        running = asyncio.ensure_future(call(handle, "sleep", 1))
        streaming = asyncio.ensure_future(stream(handle, "slowly", 20))
        pinned = asyncio.ensure_future(call(handle, "sleep", 4, pinned=True))
        await asyncio.sleep(0.3)
        retiring = asyncio.ensure_future(await_ref(handle.retire.remote()))
        await asyncio.sleep(0.2)
        assert isinstance(await call(handle, "pid"), Retired)
        assert await stream(handle, "numbers", 3) == [Retired()]
        assert isinstance(await call(handle, "pid", pinned=True), int)
        assert await stream(handle, "numbers", 3, pinned=True) == [0, 1, 2]
        assert not retiring.done()
        await retiring
        async with asyncio.timeout(1):  # the answers may still be on their way
            assert (await running, await streaming) == ("slept", list(range(20)))
        assert not pinned.done()
        await await_ref(handle.resume.remote())
        assert isinstance(await call(handle, "pid"), int)
        assert await pinned == "slept"
        stats = await await_ref(handle.stats.remote())
        assert (stats.failed, stats.in_flight) == (0, 0) and stats.quantile_ms(1.0) > 3000

    async def test_a_stream_goes_on_as_it_is_read(self, hosts: Hosts) -> None:
        handle = await hosts.load(CODE)
        options = {"num_returns": "streaming", "_generator_backpressure_num_objects": 2}
        items = handle.stream.options(**options).remote("counted", [1000], {})
        assert [await await_ref(await anext(items)) for _ in range(3)] == [0, 1, 2]
        await asyncio.sleep(0.5)
        assert await call(handle, "how_many") <= 6
        ray.cancel(items)

    async def test_a_stream_that_nobody_reads_on_ends(self, hosts: Hosts) -> None:
        handle = await hosts.load(CODE)
        items = handle.stream.options(num_returns="streaming").remote("slowly", [100_000], {})
        assert await await_ref(await anext(items)) == 0
        ray.cancel(items)  # to drop it would not do: Ray reads on

        async def has_ended() -> bool:
            return bool((await await_ref(handle.stats.remote())).in_flight == 0)

        await until(has_ended)
        await await_ref(handle.retire.remote())


class TestState:
    @pytest.mark.parametrize("kind", ["in-host", "sandboxed"])
    async def test_of_a_durable_module(self, hosts: Hosts, keeper: Keeper, kind: RunnerKind) -> None:
        spec = {"name": f"durable-{kind}", "class_name": "Counter", "runner": kind, "state": {"durable": True}}
        old = await hosts.load(STATEFUL, epoch=1, **spec)
        keeper.follow(old, 1)
        assert [await call(old, "up") for _ in range(2)] == [1, 2]
        with pytest.raises(ModuleFailed, match="ValueError"):
            await call(old, "fails")
        assert await stream(old, "count_to", 8) == list(range(8))
        assert len(keeper.kept) == 4

        keeper.is_back.clear()
        waiting = asyncio.ensure_future(call(old, "up"))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        keeper.is_back.set()
        assert await waiting == 8

        await await_ref(old.retire.remote())
        state = await await_ref(old.export_state.remote())
        new = await hosts.load(STATEFUL, epoch=2, **spec)
        await await_ref(new.import_state.remote(state, "1.0"))
        keeper.follow(new, 2)
        assert await call(new, "up") == 9
        assert [epoch for epoch, _ in keeper.kept] == [1] * 5 + [2]

    async def test_that_another_host_has_taken_over_is_kept_no_more(self, hosts: Hosts, keeper: Keeper) -> None:
        handle = await hosts.load(STATEFUL, class_name="Counter", state={"durable": True})
        keeper.follow(handle, 1, Conflict("host 1 does not serve"))
        with pytest.raises(CallInterrupted, match="its state could not be kept"):
            await call(handle, "up")
        assert keeper.kept == []

    async def test_of_one_that_is_kept_from_time_to_time(self, hosts: Hosts, keeper: Keeper) -> None:
        handle = await hosts.load(STATEFUL, name="now-and-then", class_name="Counter", state={"checkpoint_s": 0.3})
        keeper.follow(handle, 1)
        for _ in range(20):
            await call(handle, "up")
        await asyncio.sleep(0.6)
        assert 1 <= len(keeper.kept) <= 2
        before = await await_ref(handle.export_state.remote())
        await call(handle, "up")
        await asyncio.sleep(0.6)
        assert keeper.kept[-1][1] == before
        await await_ref(handle.resume.remote())
        await asyncio.sleep(0.6)
        assert keeper.kept[-1][1] != before

    async def test_of_one_that_has_none(self, hosts: Hosts) -> None:
        handle = await hosts.load(CODE)
        with pytest.raises(ModuleFailed, match="has no function 'export_state'"):
            await await_ref(handle.export_state.remote())
