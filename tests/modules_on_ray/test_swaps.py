"""Swaps on a real Ray: canaries, state that moves, ways back, sessions, pins, several hosts, deaths in the middle."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from modules_on_ray import kill, loaded_version, publish, until

from noodle_ray.actors.module_calls import ModuleCaller
from noodle_ray.actors.ray_errors import await_ref
from noodle_ray.errors import CallInterrupted, Conflict, Incompatible, ModuleFailed, NoodleError, NotFound
from noodle_ray.modules.call_route import CallTarget

pytestmark = pytest.mark.ray

PLAIN = """
import os, time
def version(): return VERSION
def pid(): return os.getpid()
def numbers(upto):
    for number in range(upto):
        yield number
def sleeps(seconds):
    time.sleep(seconds)
    return VERSION
"""
COUNTER = """
import os
class Counter:
    def __init__(self): self.counts = {}
    def add(self, key):
        self.counts[key] = self.counts.get(key, 0) + 1
        return self.counts[key]
    def value(self, key): return self.counts.get(key, 0)
    def pid(self): return os.getpid()
    def version(self): return VERSION
    def export_state(self): return self.counts
    def import_state(self, state, from_version): self.counts = dict(state)
"""

NOTES = """
import random, time
SEEN = []
def note(number):
    time.sleep(random.random() / 200)
    SEEN.append(number)
    return list(SEEN)
"""
SLOWLY = """
import time
def numbers(upto):
    for number in range(upto):
        time.sleep(0.02)
        yield (VERSION, number)
"""


@pytest.fixture
async def load(registry: Any) -> AsyncIterator[Callable[..., Any]]:
    """Publishes and loads a module of some versions' code; it is unloaded afterwards."""
    names = []

    async def load(name: str, versions: dict[str, str], more: str = "") -> str:
        for version, code in versions.items():
            text = f"VERSION = {version!r}\n{code}"
            await publish(registry, name, version, text, more)
        names.append(name)
        await await_ref(registry.load.remote(name, f"=={next(iter(versions))}", False, True))
        return name

    yield load
    for name in names:
        if await loaded_version(registry, name) is not None:
            await await_ref(registry.unload.remote(name))


def counter(file: str, durable: bool = True, **more: Any) -> str:
    """The lines of a manifest for a module that has state."""
    fields = ", ".join(f"{key} = {value}" for key, value in {"durable": str(durable).lower(), **more}.items())
    return f'entry_point = "{file}:Counter"\nstate = {{{fields}}}'


async def after_a_death(caller: ModuleCaller, target: CallTarget, *args: Any) -> Any:
    """What a call gives once the death is known: until then one may be sent to the dead."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await caller.call(target, args, {})
            except CallInterrupted:
                await asyncio.sleep(0.05)


class Callers:
    """Tasks that call a function over and over, and count what comes of it."""

    def __init__(self, registry: Any, name: str, function: str, count: int) -> None:
        self._done = False
        self.answers: Counter[Any] = Counter()
        self.errors: Counter[str] = Counter()
        self.last_begun: dict[Any, float] = {}
        """When the last call began that was answered so."""
        caller = ModuleCaller(registry)
        target = CallTarget(name, function)
        self._tasks = [asyncio.ensure_future(self._call(caller, target)) for _ in range(count)]

    async def _call(self, caller: ModuleCaller, target: CallTarget) -> None:
        while not self._done:
            begun = time.monotonic()
            try:
                answer = await caller.call(target, [], {})
                self.answers[answer] += 1
                self.last_begun[answer] = max(begun, self.last_begun.get(answer, begun))
            except NoodleError as error:
                self.errors[type(error).__name__] += 1
            await asyncio.sleep(0.002)

    async def end(self) -> None:
        self._done = True
        await asyncio.gather(*self._tasks)


class TestCanary:
    async def test_a_version_whose_calls_fail_is_rolled_back(self, registry: Any, load: Any) -> None:
        broken = PLAIN.replace("def version(): return VERSION", "def version(): raise ValueError('ill')")
        name = await load("canary-fails", {"1.0": PLAIN, "2.0": broken})
        callers = Callers(registry, name, "version", 8)
        await asyncio.sleep(0.5)
        with pytest.raises(ModuleFailed, match=r"2\.0 does worse than the version before: .* calls failed, 0 of"):
            await await_ref(registry.swap.remote(name))
        await asyncio.sleep(0.3)
        await callers.end()
        assert set(callers.answers) == {"1.0"} and callers.errors["ModuleFailed"] >= 2
        assert callers.errors.keys() == {"ModuleFailed"} and callers.errors.total() < callers.answers.total() / 3
        described = await await_ref(registry.describe.remote(name))
        assert described["loaded"] == "1.0"
        change = described["changes"][-1]
        assert (change["kind"], change["version"], change["outcome"]) == ("swap", "2.0", "rolled back")
        assert "calls failed" in change["why"]

    async def test_a_version_that_is_slow_is_rolled_back(self, registry: Any, load: Any) -> None:
        slow = PLAIN.replace("def version(): return", "def version(): time.sleep(0.2); return")
        name = await load("canary-slow", {"1.0": PLAIN, "2.0": slow})
        callers = Callers(registry, name, "version", 8)
        await asyncio.sleep(0.5)
        with pytest.raises(ModuleFailed, match="the middle call took"):
            await await_ref(registry.swap.remote(name))
        await callers.end()
        assert not callers.errors and callers.answers["2.0"] < callers.answers["1.0"] / 3

    async def test_a_good_version_gets_a_share_and_then_all(self, registry: Any, load: Any) -> None:
        name = await load("canary-good", {"1.0": PLAIN, "2.0": PLAIN})
        callers = Callers(registry, name, "version", 8)
        await asyncio.sleep(0.3)
        await await_ref(registry.swap.remote(name))
        swapped = time.monotonic()  # answers that were on their way may come to these callers a moment later
        await asyncio.sleep(0.3)
        await callers.end()
        assert not callers.errors and callers.last_begun["1.0"] < swapped and callers.answers["2.0"] > 20


class TestRollback:
    async def test_to_a_warm_version_and_forward_again(self, registry: Any, load: Any, caller: ModuleCaller) -> None:
        name = await load("back", {"1.0": PLAIN, "2.0": PLAIN})
        first = await caller.call(CallTarget(name, "pid"), [], {})
        await await_ref(registry.swap.remote(name))
        back = await await_ref(registry.rollback.remote(name))
        assert (back["version"], back["previous"]) == ("1.0", "2.0")
        assert await caller.call(CallTarget(name, "pid"), [], {}) == first, "the same host"
        await await_ref(registry.rollback.remote(name))
        assert await caller.call(CallTarget(name, "version"), [], {}) == "2.0"
        assert [each["kind"] for each in (await await_ref(registry.describe.remote(name)))["changes"]] == [
            "load",
            "swap",
            "rollback",
            "rollback",
        ]

    async def test_to_a_version_that_is_not_warm_any_more(self, registry: Any, load: Any, caller: ModuleCaller) -> None:
        name = await load("back-cold", {"1.0": PLAIN, "2.0": PLAIN})
        await await_ref(registry.swap.remote(name))
        await kill(registry)  # a new registry keeps nothing warm
        back = await await_ref(registry.rollback.remote(name))
        assert back["version"] == "1.0"
        assert await caller.call(CallTarget(name, "version"), [], {}) == "1.0"

    async def test_nothing_before(self, registry: Any, load: Any) -> None:
        name = await load("back-none", {"1.0": PLAIN})
        with pytest.raises(Conflict, match="no version before it"):
            await await_ref(registry.rollback.remote(name))


class TestCalls:
    async def test_a_session_keeps_its_order(self, registry: Any, load: Any) -> None:
        name = await load("ordered", {"1.0": NOTES})
        caller = ModuleCaller(registry)
        target = CallTarget(name, "note", session="one")
        answers = await asyncio.gather(*(caller.call(target, [number], {}) for number in range(50)))
        assert answers[-1] == list(range(50))
        assert not caller._lanes

    async def test_a_version_is_called_while_it_runs(self, registry: Any, load: Any, caller: ModuleCaller) -> None:
        name = await load("pinned", {"1.0": PLAIN, "2.0": PLAIN})
        await await_ref(registry.swap.remote(name))
        for wanted, found in (("==1.0", "1.0"), (">=2", "2.0"), (None, "2.0")):
            assert await caller.call(CallTarget(name, "version", version=wanted), [], {}) == found
        with pytest.raises(NotFound, match=r"no running version 'pinned ==3'; known: 2\.0, 1\.0"):
            await caller.call(CallTarget(name, "version", version="==3"), [], {})

    async def test_streams_and_a_swap_waits_for_them(self, registry: Any, load: Any, caller: ModuleCaller) -> None:
        name = await load("streams", {"1.0": SLOWLY, "2.0": SLOWLY})
        items = caller.stream(CallTarget(name, "numbers"), [50], {})
        first = await anext(items)
        swapping = asyncio.ensure_future(await_ref(registry.swap.remote(name)))
        rest = [item async for item in items]
        assert [first, *rest] == [("1.0", number) for number in range(50)]
        await swapping
        assert [item async for item in caller.stream(CallTarget(name, "numbers"), [2], {})] == [("2.0", 0), ("2.0", 1)]

    async def test_an_idempotent_call_survives_its_host(self, registry: Any, load: Any, caller: ModuleCaller) -> None:
        name = await load("again", {"1.0": PLAIN}, 'idempotent = ["sleeps"]')
        pid = await caller.call(CallTarget(name, "pid"), [], {})
        running = asyncio.ensure_future(caller.call(CallTarget(name, "sleeps"), [1.0], {}))
        await asyncio.sleep(0.3)
        os.kill(pid, signal.SIGKILL)
        assert await running == "1.0"


class TestReplicas:
    async def test_calls_go_to_all_and_a_death_is_not_felt_for_long(
        self, registry: Any, load: Any, caller: ModuleCaller
    ) -> None:
        name = await load("several", {"1.0": PLAIN}, "replicas = {min = 2, max = 2}")
        sleep = CallTarget(name, "sleeps")
        pids = {await caller.call(CallTarget(name, "pid"), [], {}) for _ in range(40)}
        assert len(pids) == 2
        await asyncio.gather(*(caller.call(sleep, [0.05], {}) for _ in range(8)))
        os.kill(next(iter(pids)), signal.SIGKILL)
        assert await after_a_death(caller, CallTarget(name, "pid"))

        async def is_replaced() -> bool:
            found = {await after_a_death(caller, CallTarget(name, "pid")) for _ in range(40)}
            return len(found) == 2

        await until(is_replaced)

    async def test_more_hosts_come_with_more_calls(self, registry: Any, load: Any, caller: ModuleCaller) -> None:
        name = await load("scaled", {"1.0": PLAIN}, "replicas = {min = 1, max = 2, calls = 4}")
        running = [asyncio.ensure_future(caller.call(CallTarget(name, "sleeps"), [4.0], {})) for _ in range(8)]

        async def has_two() -> bool:
            return len((await await_ref(registry.describe.remote(name)))["nodes"]) == 2

        await until(has_two)
        assert await asyncio.gather(*running) == ["1.0"] * 8


class TestState:
    async def test_moves_with_a_swap_and_back(self, registry: Any, load: Any, caller: ModuleCaller) -> None:
        name = await load("tally", {"1.0": COUNTER, "2.0": COUNTER}, counter("tally"))
        for _ in range(3):
            await caller.call(CallTarget(name, "add"), ["a"], {})
        await await_ref(registry.swap.remote(name))
        assert await caller.call(CallTarget(name, "version"), [], {}) == "2.0"
        assert await caller.call(CallTarget(name, "add"), ["a"], {}) == 4
        await await_ref(registry.rollback.remote(name))
        assert await caller.call(CallTarget(name, "version"), [], {}) == "1.0"
        assert await caller.call(CallTarget(name, "add"), ["a"], {}) == 5

    async def test_no_call_is_lost_or_runs_twice_while_it_moves(self, registry: Any, load: Any) -> None:
        name = await load("tally-busy", {"1.0": COUNTER, "2.0": COUNTER}, counter("tally_busy", durable=False))
        caller, done, made = ModuleCaller(registry), False, Counter[str]()

        async def adds(session: str) -> None:
            while not done:
                made[session] += 1
                target = CallTarget(name, "add", session=session)
                assert await caller.call(target, [session], {}) == made[session]

        running = [asyncio.ensure_future(adds(f"s{number}")) for number in range(8)]
        for version in ("==2.0", "==1.0", "==2.0"):
            await asyncio.sleep(0.3)
            await await_ref(registry.swap.remote(name, version))
        done = True
        await asyncio.gather(*running)
        for session, count in made.items():
            assert await caller.call(CallTarget(name, "value"), [session], {}) == count

    async def test_durable_state_survives_a_death(self, registry: Any, load: Any, caller: ModuleCaller) -> None:
        name = await load("tally-dies", {"1.0": COUNTER}, counter("tally_dies"))
        for _ in range(5):
            await caller.call(CallTarget(name, "add"), ["a"], {})
        os.kill(await caller.call(CallTarget(name, "pid"), [], {}), signal.SIGKILL)
        assert await after_a_death(caller, CallTarget(name, "value"), "a") == 5

    async def test_and_a_death_of_the_registry_too(self, registry: Any, load: Any, caller: ModuleCaller) -> None:
        name = await load("tally-both", {"1.0": COUNTER}, counter("tally_both"))
        await caller.call(CallTarget(name, "add"), ["a"], {})
        os.kill(await caller.call(CallTarget(name, "pid"), [], {}), signal.SIGKILL)
        await kill(registry)
        assert await after_a_death(ModuleCaller(registry), CallTarget(name, "add"), "a") == 2

    async def test_is_left_to_the_next_load_unless_that_is_fresh(
        self, registry: Any, load: Any, caller: ModuleCaller
    ) -> None:
        name = await load("tally-left", {"1.0": COUNTER}, counter("tally_left", durable=False, checkpoint_s=60.0))
        await caller.call(CallTarget(name, "add"), ["a"], {})
        await await_ref(registry.unload.remote(name))
        await await_ref(registry.load.remote(name))
        assert await caller.call(CallTarget(name, "value"), ["a"], {}) == 1
        await await_ref(registry.unload.remote(name))
        await await_ref(registry.load.remote(name, "", False, True))
        assert await caller.call(CallTarget(name, "value"), ["a"], {}) == 0

    async def test_that_cannot_be_taken_stays_where_it_was(
        self, registry: Any, load: Any, caller: ModuleCaller
    ) -> None:
        refuses = COUNTER.replace("self.counts = dict(state)", "raise ValueError('no')")
        name = await load("tally-stays", {"1.0": COUNTER, "2.0": refuses}, counter("tally_stays"))
        await caller.call(CallTarget(name, "add"), ["a"], {})
        with pytest.raises(ModuleFailed, match="ValueError: no"):
            await await_ref(registry.swap.remote(name))
        assert await caller.call(CallTarget(name, "add"), ["a"], {}) == 2

    async def test_that_cannot_be_read_is_left_behind_only_by_force(
        self, registry: Any, load: Any, caller: ModuleCaller
    ) -> None:
        name = await load("tally-forced", {"1.0": COUNTER}, counter("tally_forced"))
        await publish(registry, name, "2.0", f"VERSION = '2.0'\n{COUNTER}", counter("tally_forced", schema_version=2))
        await caller.call(CallTarget(name, "add"), ["a"], {})
        with pytest.raises(Incompatible, match="cannot read state of schema 1"):
            await await_ref(registry.swap.remote(name))
        await await_ref(registry.swap.remote(name, force=True))
        assert (await await_ref(registry.describe.remote(name)))["changes"][-1]["forced"]
        os.kill(await caller.call(CallTarget(name, "pid"), [], {}), signal.SIGKILL)
        assert await after_a_death(caller, CallTarget(name, "value"), "a") == 0

    async def test_comes_back_where_the_new_version_fails_its_calls(self, registry: Any, load: Any) -> None:
        broken = COUNTER.replace("def value(self, key): return", "def value(self, key): raise ValueError; return")
        name = await load("tally-returns", {"1.0": COUNTER, "2.0": broken}, counter("tally_returns"))
        caller = ModuleCaller(registry)
        for _ in range(30):
            await caller.call(CallTarget(name, "add"), ["a"], {})
        done, adds, failures = False, 30, 0

        async def reads() -> None:
            nonlocal failures
            while not done:
                try:
                    await caller.call(CallTarget(name, "value"), ["a"], {})
                except ModuleFailed:
                    failures += 1
                await asyncio.sleep(0.01)

        reading = asyncio.ensure_future(reads())
        with pytest.raises(ModuleFailed, match="does worse than the version before"):
            await await_ref(registry.swap.remote(name))
        done = True
        await reading
        assert failures >= 2
        assert await caller.call(CallTarget(name, "value"), ["a"], {}) == adds
        assert await loaded_version(registry, name) == "1.0"


class TestDeathInTheMiddle:
    async def test_of_the_registry_in_a_canary_rolls_back_and_says_so(self, registry: Any, load: Any) -> None:
        name = await load("torn", {"1.0": PLAIN, "2.0": PLAIN})
        callers = Callers(registry, name, "version", 2)
        swapping = asyncio.ensure_future(await_ref(registry.swap.remote(name)))

        async def is_tried() -> bool:
            return bool(callers.answers["2.0"])

        await until(is_tried)
        await kill(registry)
        with pytest.raises(NoodleError):
            await swapping
        await asyncio.sleep(0.5)
        await callers.end()
        assert not callers.errors, "no call was lost"
        described = await await_ref(registry.describe.remote(name))
        assert described["loaded"] == "1.0"
        assert (described["changes"][-1]["outcome"], described["changes"][-1]["why"]) == (
            "rolled back",
            "the registry was restarted meanwhile",
        )

    async def test_of_the_new_host_in_a_canary_rolls_back(self, registry: Any, load: Any) -> None:
        dies = PLAIN.replace("def version(): return VERSION", "def version(): os._exit(1)")
        name = await load("torn-host", {"1.0": PLAIN, "2.0": dies})
        callers = Callers(registry, name, "version", 4)
        await asyncio.sleep(0.3)
        with pytest.raises(ModuleFailed, match="its host died"):
            await await_ref(registry.swap.remote(name))
        await callers.end()
        assert callers.errors.keys() == {"CallInterrupted"} and callers.errors.total() <= 4
        assert await loaded_version(registry, name) == "1.0"
