"""Modules on a real Ray: published, loaded, called, swapped under load, broken, killed, and back again."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest
import ray
from modules_on_ray import EXAMPLES, allocator, has, kill, loaded_version, lose_places, places, publish, until

from noodle_ray.actors import ray_state
from noodle_ray.actors.module_calls import ModuleCaller
from noodle_ray.actors.module_registry import ModuleRegistry
from noodle_ray.actors.names import HOST_NAMESPACES
from noodle_ray.actors.ray_errors import await_ref
from noodle_ray.actors.warm_hosts import OWN, WARM
from noodle_ray.errors import (
    CallInterrupted,
    Conflict,
    DeadlineExceeded,
    Incompatible,
    InvalidInput,
    ModuleFailed,
    NoodleError,
    NotFound,
    Unresolvable,
)
from noodle_ray.modules.archive import write_entries
from noodle_ray.modules.artefact import pack_module
from noodle_ray.modules.call_route import CallTarget
from noodle_ray.settings import Settings

pytestmark = pytest.mark.ray
PID = "import os\ndef pid(): return os.getpid()"


class TestExamples:
    async def test_publish_resolve_load_call_swap_unload(self, registry: Any, caller: ModuleCaller) -> None:
        lock = await await_ref(registry.resolve.remote({"wordcount": "<2"}))
        assert [(each["name"], each["version"]) for each in lock["modules"]] == [
            ("tokenizer", "1.1"),
            ("wordcount", "1.0.0"),
        ]
        loaded = await await_ref(registry.load.remote("wordcount", "<2"))
        assert (loaded["version"], loaded["previous"], loaded["lock"]) == ("1.0.0", None, lock)
        assert loaded["node_id"] in ray_state.live_nodes()
        assert {"place", "host", "unpack", "import", "check", "route", "total"} <= loaded["milliseconds"].keys()
        text = "To be, or not to be: that is the question."
        assert (await caller.call(CallTarget("wordcount", "count"), [text], {}))["to"] == 2

        swapped = await await_ref(registry.swap.remote("WordCount"))
        assert (swapped["version"], swapped["previous"]) == ("2.0.0", "1.0.0")
        assert await caller.call(CallTarget("wordcount", "count"), [], {"text": text}) == {"question": 1}
        with pytest.raises(ModuleFailed, match="k must be at least 1") as failed:
            await caller.call(CallTarget("wordcount", "top"), [text, 0], {})
        assert "counter.py" in failed.value.trace

        with pytest.raises(Conflict, match=r"2\.0\.0 runs already"):
            await await_ref(registry.swap.remote("wordcount"))
        with pytest.raises(Conflict, match="wordcount is loaded: swap it"):
            await await_ref(registry.load.remote("wordcount"))

        await await_ref(registry.load.remote("tokenizer"))
        with pytest.raises(Conflict, match="tokenizer cannot be unloaded: wordcount"):
            await await_ref(registry.unload.remote("tokenizer"))
        await await_ref(registry.unload.remote("wordcount"))
        await await_ref(registry.unload.remote("tokenizer"))
        with pytest.raises(NotFound, match="no loaded module 'wordcount'"):
            await caller.call(CallTarget("wordcount", "count"), [text], {})

    async def test_publishing_again_is_no_error_and_other_content_is(self, registry: Any) -> None:
        archive = pack_module(EXAMPLES / "tokenizer" / "1.0")
        first = await await_ref(registry.publish.remote(archive))
        assert await await_ref(registry.publish.remote(archive)) == first
        with pytest.raises(Conflict, match="published with other content"):
            await publish(registry, "tokenizer", "1.0.0", "x = 1")


ECHO = """
import asyncio, os, time

def slow(number):
    time.sleep(0.02)
    return (VERSION, number)

async def waits(number):
    await asyncio.sleep(0.02)
    return (VERSION, number)

def pid():
    return os.getpid()

def sleeps(seconds):
    time.sleep(seconds)
    return VERSION
"""


class TestSwap:
    async def test_loses_no_call(self, registry: Any) -> None:
        for version in ("1", "2", "3"):
            await publish(registry, "echo", version, f"VERSION = {version}\n{ECHO}")
        await await_ref(registry.load.remote("echo", "==1"))
        answers: list[tuple[int, int]] = []
        done = False

        async def calls(caller: ModuleCaller, function: str) -> int:
            number = 0
            while not done:
                answer = await caller.call(CallTarget("echo", function), [number], {})
                assert answer[1] == number
                answers.append(answer)
                number += 1
            return number

        callers = [ModuleCaller(registry) for _ in range(4)]
        running = [asyncio.ensure_future(calls(each, kind)) for each in callers for kind in ("slow", "waits")]
        for version in ("2", "3", "1"):
            seen = len(answers)
            await await_ref(registry.swap.remote("echo", f"=={version}"))
            await until(lambda seen=seen: has(lambda: len(answers) > seen + 20))  # type: ignore[misc]
        done = True
        made = sum(await asyncio.gather(*running))
        assert len(answers) == made
        assert {version for version, _ in answers} == {1, 2, 3}
        assert {version for version, _ in answers[-8:]} == {1}
        await await_ref(registry.unload.remote("echo"))

    async def test_lets_a_call_end_on_the_version_it_began_on(self, registry: Any, caller: ModuleCaller) -> None:
        await await_ref(registry.load.remote("echo", "==1"))
        old = asyncio.ensure_future(caller.call(CallTarget("echo", "sleeps"), [1.5], {}))
        await asyncio.sleep(0.3)
        swapped = await await_ref(registry.swap.remote("echo", "==2"))
        assert swapped["version"] == "2" and old.done() and await old == 1
        await await_ref(registry.unload.remote("echo"))

    @pytest.mark.parametrize(
        ("code", "more", "error", "message"),
        [
            ("raise OSError('no such device')", "", ModuleFailed, "no such device"),
            ("import sys; sys.exit(3)", "", ModuleFailed, "SystemExit"),
            ("import os; os._exit(3)", "", NoodleError, "its host died|gone or cannot be reached"),
            ("def well(): return False", 'health_check = "well"', ModuleFailed, "health check answered False"),
            ("def well(): raise ValueError('ill')", 'health_check = "well"', ModuleFailed, "ill"),
            ("well = None", 'health_check = "well"', ModuleFailed, "has no function 'well'"),
            ("x = 1", 'requires = {nowhere = ">=1"}', Unresolvable, "there is no nowhere"),
        ],
        ids=["raises", "exits", "dies", "unwell", "health-raises", "no-health-check", "unresolvable"],
    )
    async def test_a_broken_version_rolls_back(
        self,
        registry: Any,
        caller: ModuleCaller,
        request: pytest.FixtureRequest,
        code: str,
        more: str,
        error: type[NoodleError],
        message: str,
    ) -> None:
        name = f"broken-{request.node.callspec.id}"
        await publish(registry, name, "1.0", "def hello(): return 'hello'")
        await await_ref(registry.load.remote(name))
        await publish(registry, name, "2.0", f"def hello(): return 'never'\n{code}", more)
        with pytest.raises(error, match=message):
            await await_ref(registry.swap.remote(name, ">=2"))
        assert await caller.call(CallTarget(name, "hello"), [], {}) == "hello"
        assert await loaded_version(registry, name) == "1.0"
        await await_ref(registry.unload.remote(name))

    async def test_one_that_would_break_callers_is_refused_unless_forced(
        self, registry: Any, caller: ModuleCaller
    ) -> None:
        await publish(registry, "breaking", "1.0", "def hello(): return 'hello'")
        await await_ref(registry.load.remote("breaking"))
        await publish(registry, "breaking", "2.0", "def hello(name): return name")
        with pytest.raises(Incompatible, match="hello: name is required now"):
            await await_ref(registry.swap.remote("breaking"))
        assert await caller.call(CallTarget("breaking", "hello"), [], {}) == "hello"
        await await_ref(registry.swap.remote("breaking", force=True))
        assert await caller.call(CallTarget("breaking", "hello"), ["you"], {}) == "you"
        await await_ref(registry.unload.remote("breaking"))

    async def test_a_first_load_that_fails_leaves_nothing(self, registry: Any) -> None:
        await publish(registry, "stillborn", "1.0", "1 / 0")
        with pytest.raises(ModuleFailed, match="ZeroDivisionError"):
            await await_ref(registry.load.remote("stillborn"))
        assert await loaded_version(registry, "stillborn") is None
        with pytest.raises(NotFound):
            await await_ref(registry.routes.remote("stillborn"))


class TestDeath:
    async def test_of_a_host_ends_its_calls_and_it_comes_back(self, registry: Any, caller: ModuleCaller) -> None:
        await await_ref(registry.load.remote("echo", "==1"))
        pid = await caller.call(CallTarget("echo", "pid"), [], {})
        in_flight = asyncio.ensure_future(caller.call(CallTarget("echo", "sleeps"), [30], {}))
        await asyncio.sleep(0.3)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(CallInterrupted, match="its host ended"):
            await in_flight

        async def answers() -> bool:
            try:
                return bool(await caller.call(CallTarget("echo", "pid"), [], {}) != pid)
            except CallInterrupted:
                return False  # sent before anybody knew of the death

        await until(answers)
        assert await loaded_version(registry, "echo") == "1"
        await await_ref(registry.unload.remote("echo"))

    async def test_of_the_registry_changes_nothing(self, registry: Any, caller: ModuleCaller) -> None:
        await await_ref(registry.load.remote("echo", "==1"))
        pid = await caller.call(CallTarget("echo", "pid"), [], {})
        before = await await_ref(registry.modules.remote())
        await kill(registry)
        assert await ModuleCaller(registry).call(CallTarget("echo", "pid"), [], {}) == pid
        assert await await_ref(registry.modules.remote()) == before
        swapped = await await_ref(registry.swap.remote("echo", "==2"))
        assert swapped["previous"] == "1"
        await await_ref(registry.unload.remote("echo"))

    async def test_of_both_brings_the_module_back(self, registry: Any, caller: ModuleCaller) -> None:
        await await_ref(registry.load.remote("echo", "==1"))
        pid = await caller.call(CallTarget("echo", "pid"), [], {})
        os.kill(pid, signal.SIGKILL)
        await kill(registry)
        fresh = ModuleCaller(registry)

        async def answers() -> bool:
            try:
                return bool(await fresh.call(CallTarget("echo", "pid"), [], {}) != pid)
            except CallInterrupted:
                return False

        await until(answers)
        assert await loaded_version(registry, "echo") == "1"
        await await_ref(registry.unload.remote("echo"))


class TestPlacement:
    async def test_a_module_with_a_gpu_runs_within_its_group(self, registry: Any, caller: ModuleCaller) -> None:
        code = "import os\ndef devices(): return os.environ.get('CUDA_VISIBLE_DEVICES')"
        await publish(registry, "seer", "1.0", code, "resources = {cpus = 0.5, gpu_share = 0.5}")
        loaded = await await_ref(registry.load.remote("seer"))
        assert not loaded["warm"]
        assert await caller.call(CallTarget("seer", "devices"), [], {}) == "0"
        assert len(ray_state.groups()) == 1
        await await_ref(registry.unload.remote("seer"))
        assert ray_state.groups() == {}

    async def test_a_module_with_cpus_holds_them(self, registry: Any) -> None:
        await publish(registry, "adder", "1.0", "def add(a, b): return a + b", "resources = {cpus = 1}")
        await publish(registry, "adder", "2.0", "def add(a, b): ...\nraise ValueError", "resources = {cpus = 1}")
        await await_ref(registry.load.remote("adder", "==1.0"))
        assert len(ray_state.groups()) == 1
        with pytest.raises(ModuleFailed):
            await await_ref(registry.swap.remote("adder"))
        assert len(ray_state.groups()) == 1
        await await_ref(registry.unload.remote("adder"))
        assert ray_state.groups() == {}

    async def test_a_host_that_outlived_the_loss_of_its_place_holds_it_again(
        self, registry: Any, caller: ModuleCaller
    ) -> None:
        await publish(registry, "outliver", "1.0", PID, "resources = {cpus = 0.5}")
        await await_ref(registry.load.remote("outliver"))
        pid = await caller.call(CallTarget("outliver", "pid"), [], {})
        [before] = await places(registry)
        await lose_places(registry)

        async def holds_again() -> bool:
            return bool(await places(registry))

        await until(holds_again)
        [after] = await places(registry)
        assert (after.owner, after.node_id) == (before.owner, before.node_id) and after.id != before.id
        assert after.request.bundles[0].labels == {"ray.io/node-id": before.node_id}
        assert await caller.call(CallTarget("outliver", "pid"), [], {}) == pid
        noted = registry.__ray_call__.remote(lambda actor: actor._book.core.load("outliver").hosts[0].allocation_id)
        assert await await_ref(noted) == after.id
        await await_ref(registry.unload.remote("outliver"))
        assert ray_state.groups() == {}

    async def test_a_host_whose_place_was_given_away_is_replaced(self, registry: Any, caller: ModuleCaller) -> None:
        await publish(registry, "unseated", "1.0", PID, "resources = {cpus = 0.5}")
        await await_ref(registry.load.remote("unseated"))
        pid = await caller.call(CallTarget("unseated", "pid"), [], {})

        def refuse(actor: Any, labels: bool) -> None:
            actor._allocator.refuses_labels = labels

        await await_ref(registry.__ray_call__.remote(refuse, True))
        await lose_places(registry)

        async def is_replaced() -> bool:
            try:
                return bool(await caller.call(CallTarget("unseated", "pid"), [], {}) != pid)
            except CallInterrupted:
                return False

        await until(is_replaced)
        assert [one.owner for one in await places(registry)] == ["module:unseated"]
        await await_ref(registry.__ray_call__.remote(refuse, False))
        await await_ref(registry.unload.remote("unseated"))
        assert ray_state.groups() == {}

    async def test_an_unload_frees_at_once_what_a_swap_left_for_late_calls(self, registry: Any) -> None:
        for version in ("1.0", "2.0"):
            await publish(registry, "mover", version, "def go(): return 1", "resources = {cpus = 1}")
        await await_ref(registry.load.remote("mover", "<2"))
        await await_ref(registry.swap.remote("mover"))
        assert len(ray_state.groups()) == 2
        await await_ref(registry.unload.remote("mover"))
        assert ray_state.groups() == {}

    async def test_warm_hosts_come_back(self, registry: Any) -> None:
        async def one_is_ready() -> bool:
            return bool(_hosts())

        await until(one_is_ready)
        # A namespace each, and no name that is not in use again and again: Ray never forgets the figures of a name.
        hosts = _hosts()
        assert len({host["namespace"] for host in hosts}) == len(hosts)
        assert {host["name"] for host in hosts} <= {WARM, OWN}
        await asyncio.sleep(1.5)
        loaded = await await_ref(registry.load.remote("tokenizer"))
        assert loaded["warm"]
        await await_ref(registry.unload.remote("tokenizer"))


class TestBadInput:
    @pytest.mark.parametrize("archive", [b"", b"PK", b"x" * 1000, write_entries({"a": b"x"})])
    async def test_no_module(self, registry: Any, archive: bytes) -> None:
        with pytest.raises(InvalidInput):
            await await_ref(registry.publish.remote(archive))

    async def test_unknown_names_and_versions(self, registry: Any, caller: ModuleCaller) -> None:
        with pytest.raises(NotFound, match="no module 'nothing'"):
            await await_ref(registry.load.remote("nothing"))
        with pytest.raises(Unresolvable, match="needs tokenizer >=9"):
            await await_ref(registry.load.remote("tokenizer", ">=9"))
        with pytest.raises(InvalidInput, match=r"requirements\.tokenizer"):
            await await_ref(registry.load.remote("tokenizer", "newest"))
        with pytest.raises(NotFound, match="no loaded module"):
            await await_ref(registry.swap.remote("tokenizer"))
        with pytest.raises(NotFound, match="no loaded module"):
            await caller.call(CallTarget("nothing", "x"), [], {})
        with pytest.raises(InvalidInput, match="name"):
            await caller.call(CallTarget("no such", "x"), [], {})
        with pytest.raises(NotFound, match="no version"):
            await await_ref(registry.yank.remote("tokenizer", "7"))

    async def test_what_a_call_can_get_wrong(self, registry: Any, caller: ModuleCaller) -> None:
        code = """
import threading
def _hidden(): return 1
def lock(): return threading.Lock()
def numbers(): yield 1
def stops(): raise StopIteration
def exits(): raise SystemExit(2)
async def breaks(): raise KeyError('gone')
"""
        await publish(registry, "odd", "1.0", code)
        await await_ref(registry.load.remote("odd"))
        with pytest.raises(NotFound, match=r"no function 'odd._hidden'; known: breaks, exits, lock, numbers, stops"):
            await caller.call(CallTarget("odd", "_hidden"), [], {})
        with pytest.raises(InvalidInput, match="arguments: too many positional arguments; the function is stops"):
            await caller.call(CallTarget("odd", "stops"), [1], {})
        for function, problem in (
            ("lock", "cannot pickle"),
            ("numbers", "generator"),
            ("stops", "StopIteration"),
            ("exits", "SystemExit: 2"),
            ("breaks", "KeyError: 'gone'"),
        ):
            with pytest.raises(ModuleFailed, match=problem):
                await caller.call(CallTarget("odd", function), [], {})
        await await_ref(registry.unload.remote("odd"))

    async def test_a_package_that_is_installed_here_already(self, registry: Any) -> None:
        await publish(registry, "numpy", "1.0", "x = 1")
        with pytest.raises(InvalidInput, match="package 'numpy' has the name of one that is installed"):
            await await_ref(registry.load.remote("numpy"))

    async def test_a_yanked_version_is_not_chosen(self, registry: Any) -> None:
        await publish(registry, "yanked", "1.0", "x = 1")
        assert (await await_ref(registry.yank.remote("yanked", "1")))["yanked"]
        with pytest.raises(Unresolvable, match="yanked"):
            await await_ref(registry.load.remote("yanked"))


async def test_a_load_that_hangs_is_ended_in_time(settings: Settings) -> None:
    """With a registry of its own, whose patience is short."""
    short = settings.model_copy(update={"module_loading_timeout_ms": 4000, "state_dir": settings.state_dir / "short"})
    # Detached, so that it ends when it is told to, and not when Ray thinks that nobody refers to it any more.
    alone = {"name": "impatient-registry", "lifetime": "detached", "num_cpus": 0}
    actor = ray.remote(ModuleRegistry).options(**alone).remote(short, allocator())
    await publish(actor, "hangs", "1.0", "import time; time.sleep(600)")
    with pytest.raises(
        DeadlineExceeded, match=r"loading hangs 1.0 \(place .* ms, host .* ms.*\) did not finish within"
    ):
        await await_ref(actor.load.remote("hangs"))
    assert await loaded_version(actor, "hangs") is None
    ray.kill(actor)


def _hosts() -> list[dict[str, str]]:
    named = ray.util.list_named_actors(all_namespaces=True)
    return [entry for entry in named if entry["namespace"].startswith(HOST_NAMESPACES)]
