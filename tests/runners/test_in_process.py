"""A module's code in this process: what it may raise, print, stream and keep."""

from __future__ import annotations

import asyncio
import io
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from runner_programs import program

from noodle_ray.errors import InvalidInput, ModuleFailed, NotFound, Unavailable
from noodle_ray.runners.import_path import top_level_names
from noodle_ray.runners.in_process import InProcessRunner
from noodle_ray.runners.output import LimitedOutput
from noodle_ray.runners.runner import Program
from noodle_ray.runners.state import PICKLED, PLAIN


@pytest.fixture
async def runner() -> AsyncIterator[InProcessRunner]:
    runner = InProcessRunner()
    yield runner
    await runner.close()


FUNCTIONS = """
import asyncio, functools, threading, time

def _hidden(): ...
def add(a, b=1): return a + b
async def wait(value): await asyncio.sleep(0); return value
def thread(): return threading.current_thread().name
def anything(a, /, **more): return a, more
def optional(a=1, /, **more): return a, more
def names(self, work, function): return [self, work, function]
def raises(): raise ValueError("no")
def exits(): raise SystemExit(3)
async def interrupts(): raise KeyboardInterrupt
async def leaves(): raise GeneratorExit
async def cancels(): raise asyncio.CancelledError
def stops(): raise StopIteration
def numbers(upto):
    yield from range(upto)
@functools.wraps(wait)
def wrapped(value): return wait(value)
"""


class TestCalling:
    async def test_functions_of_a_file(self, runner: InProcessRunner, tmp_path: Path) -> None:
        await runner.load(program(tmp_path, FUNCTIONS))
        await runner.check()
        assert await runner.call("add", [1], {}) == 2
        assert await runner.call("add", (1,), {"b": 2}) == 3
        assert await runner.call("wait", ["x"], {}) == "x"
        assert await runner.call("wrapped", ["x"], {}) == "x"
        assert (await runner.call("thread", [], {})).startswith("module")
        assert await runner.call("names", [], {"self": 1, "work": 2, "function": 3}) == [1, 2, 3]
        with pytest.raises(NotFound, match=r"no function 'prog\._hidden'; known: add, anything, cancels"):
            await runner.call("_hidden", [], {})

    async def test_methods_of_a_class(self, runner: InProcessRunner, tmp_path: Path) -> None:
        code = """
class Counter:
    limit = 3
    def __init__(self): self.count = 0
    def up(self): self.count += 1; return self.count
    def export_state(self): return self.count
    def import_state(self, state, from_version): self.count = state
    def _well(self): return True
    def is_well(self): return True
"""
        await runner.load(program(tmp_path, code, "Counter", health_check="is_well"))
        await runner.check()
        assert [await runner.call("up", [], {}) for _ in range(3)] == [1, 2, 3]
        for name in ("export_state", "import_state", "is_well", "limit", "_well"):
            with pytest.raises(NotFound, match="known: up"):
                await runner.call(name, [], {})

    async def test_only_what_all_lists(self, runner: InProcessRunner, tmp_path: Path) -> None:
        await runner.load(program(tmp_path, "from os.path import join\n__all__ = ['join']\ndef other(): ..."))
        assert await runner.call("join", ["a", "b"], {}) == "a/b"
        with pytest.raises(NotFound):
            await runner.call("other", [], {})

    @pytest.mark.parametrize(
        ("function", "args", "kwargs", "given"),
        [
            ("anything", [1], {"a": 2}, (1, {"a": 2})),
            ("optional", [], {"a": 2}, (1, {"a": 2})),
        ],
    )
    async def test_a_keyword_named_as_a_positional_parameter(
        self,
        runner: InProcessRunner,
        tmp_path: Path,
        function: str,
        args: list[Any],
        kwargs: dict[str, Any],
        given: Any,
    ) -> None:
        await runner.load(program(tmp_path, FUNCTIONS))
        assert await runner.call(function, args, kwargs) == given

    @pytest.mark.parametrize(
        ("function", "args", "kwargs"),
        [("add", [], {}), ("add", [1, 2, 3], {}), ("add", [1], {"c": 1}), ("anything", [], {"a": 1}), ("wait", [], {})],
    )
    async def test_arguments_that_do_not_fit(
        self, runner: InProcessRunner, tmp_path: Path, function: str, args: list[Any], kwargs: dict[str, Any]
    ) -> None:
        await runner.load(program(tmp_path, FUNCTIONS))
        with pytest.raises(InvalidInput, match=rf"arguments: .*; the function is {function}\("):
            await runner.call(function, args, kwargs)

    async def test_a_function_in_c_checks_for_itself(self, runner: InProcessRunner, tmp_path: Path) -> None:
        await runner.load(program(tmp_path, "__all__ = ['max']\nmax = max"))
        assert await runner.call("max", [1, 2], {}) == 2
        with pytest.raises(ModuleFailed, match="TypeError"):
            await runner.call("max", [], {})

    @pytest.mark.parametrize(
        ("function", "problem"),
        [
            ("raises", "ValueError: no"),
            ("exits", "SystemExit: 3"),
            ("interrupts", "KeyboardInterrupt"),
            ("leaves", "GeneratorExit"),
            ("cancels", "CancelledError"),
            ("stops", "StopIteration"),
        ],
    )
    async def test_whatever_it_raises_is_its_failure(
        self, runner: InProcessRunner, tmp_path: Path, function: str, problem: str
    ) -> None:
        await runner.load(program(tmp_path, FUNCTIONS))
        with pytest.raises(ModuleFailed, match=problem) as failed:
            await runner.call(function, [], {})
        assert f"in {function}" in failed.value.trace

    async def test_who_calls_may_give_up(self, runner: InProcessRunner, tmp_path: Path) -> None:
        await runner.load(program(tmp_path, "import asyncio\nasync def wait(): await asyncio.sleep(60)"))
        call = asyncio.ensure_future(runner.call("wait", [], {}))
        await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    async def test_a_closed_one_takes_no_calls(self, runner: InProcessRunner, tmp_path: Path) -> None:
        given = program(tmp_path, FUNCTIONS)
        before = sys.stdout
        await runner.load(given)
        assert isinstance(sys.stdout, LimitedOutput) and str(given.folders[0]) in sys.path
        await runner.close()
        assert sys.stdout is before and str(given.folders[0]) not in sys.path
        with pytest.raises(Unavailable, match="prog was closed"):
            await runner.call("add", [1], {})


class TestLoading:
    @pytest.mark.parametrize(
        ("code", "entry", "problem"),
        [
            ("1 / 0", "", "ZeroDivisionError"),
            ("import sys; sys.exit(3)", "", "SystemExit: 3"),
            ("class A:\n    def __init__(self): raise KeyError('x')", "A", "KeyError: 'x'"),
            ("x = 1", "A", "AttributeError"),
        ],
    )
    async def test_what_fails(
        self, runner: InProcessRunner, tmp_path: Path, code: str, entry: str, problem: str
    ) -> None:
        with pytest.raises(ModuleFailed, match=problem):
            await runner.load(program(tmp_path, code, entry))

    async def test_names_that_are_taken(self, runner: InProcessRunner, tmp_path: Path) -> None:
        for folder, file in (("one", "own"), ("two", "own"), ("three", "numpy")):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / f"{file}.py").touch()
        with pytest.raises(InvalidInput, match="two modules of the lock have a package 'own'"):
            await runner.load(Program("prog", (tmp_path / "one", tmp_path / "two"), "own"))
        with pytest.raises(InvalidInput, match="package 'numpy' has the name of one that is installed"):
            await runner.load(Program("prog", (tmp_path / "three",), "numpy"))

    def test_names_that_others_can_import(self, tmp_path: Path) -> None:
        for name in ("a/__init__.py", "b.py", "tests/__init__.py", "data/x.txt", "c-d.py"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        assert top_level_names(tmp_path) == {"a", "b"}

    @pytest.mark.parametrize("vendor", [True, False])
    async def test_a_vendor_folder(self, runner: InProcessRunner, tmp_path: Path, vendor: bool) -> None:
        name = f"vendored_{vendor}"
        given = program(tmp_path, f"def value():\n    import {name}\n    return {name}.VALUE", vendor=vendor)
        (given.folders[0] / "vendor").mkdir()
        (given.folders[0] / "vendor" / f"{name}.py").write_text("VALUE = 7")
        await runner.load(given)
        if vendor:
            assert await runner.call("value", [], {}) == 7
            assert sys.path[:2] == [str(given.folders[0]), str(given.folders[0] / "vendor")]
        else:
            with pytest.raises(ModuleFailed, match="No module named"):
                await runner.call("value", [], {})

    @pytest.mark.parametrize(
        ("code", "problem"),
        [
            ("def well(): return False", "its health check answered False"),
            ("async def well(): raise ValueError('ill')", "ValueError: ill"),
            ("def well(needed): ...", "TypeError"),
        ],
    )
    async def test_an_unwell_one(self, runner: InProcessRunner, tmp_path: Path, code: str, problem: str) -> None:
        await runner.load(program(tmp_path, code, health_check="well"))
        with pytest.raises(ModuleFailed, match=problem):
            await runner.check()

    async def test_a_health_check_that_is_not_there(self, runner: InProcessRunner, tmp_path: Path) -> None:
        with pytest.raises(ModuleFailed, match="has no function 'well', which its manifest names as the health check"):
            await runner.load(program(tmp_path, "well = 3", health_check="well"))


STREAMS = """
import asyncio, threading, time

made, closed = [], threading.Event()

def numbers(upto):
    try:
        for number in range(upto):
            made.append(number)
            yield number
    finally:
        closed.set()

async def waits(upto):
    try:
        for number in range(upto):
            made.append(number)
            yield number
            await asyncio.sleep(0)
    finally:
        await asyncio.sleep(0)
        closed.set()

def slow(upto):
    try:
        for number in range(upto):
            time.sleep(0.2)
            yield number
    finally:
        closed.set()

def breaks(upto):
    yield 0
    raise ValueError("broken")

async def breaks_async(upto):
    yield 0
    raise SystemExit(4)

def stubborn(upto):
    try:
        yield 0
    finally:
        raise KeyError("mine")

async def later(upto): return numbers(upto)
def plain(upto): return [upto]
def seen(): return list(made), closed.is_set()
def wait_closed(): return closed.wait(5)
"""


class TestStreaming:
    @pytest.mark.parametrize("function", ["numbers", "waits", "later"])
    async def test_all_of_it(self, runner: InProcessRunner, tmp_path: Path, function: str) -> None:
        await runner.load(program(tmp_path, STREAMS))
        assert [item async for item in runner.stream(function, [3], {})] == [0, 1, 2]
        assert await runner.call("seen", [], {}) == ([0, 1, 2], True)

    @pytest.mark.parametrize("function", ["numbers", "waits"])
    async def test_on_demand_and_closed_early(self, runner: InProcessRunner, tmp_path: Path, function: str) -> None:
        await runner.load(program(tmp_path, STREAMS))
        async with aclosing(runner.stream(function, [1000], {})) as items:
            assert [await anext(items), await anext(items)] == [0, 1]
            assert await runner.call("seen", [], {}) == ([0, 1], False)
        assert await runner.call("seen", [], {}) == ([0, 1], True)

    async def test_given_up_while_an_item_is_made(self, runner: InProcessRunner, tmp_path: Path) -> None:
        await runner.load(program(tmp_path, STREAMS))
        items = runner.stream("slow", [1000], {})
        waiting = asyncio.ensure_future(anext(items))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await runner.call("wait_closed", [], {})

    @pytest.mark.parametrize(
        ("function", "problem"), [("breaks", "ValueError: broken"), ("breaks_async", "SystemExit: 4")]
    )
    async def test_one_that_breaks(self, runner: InProcessRunner, tmp_path: Path, function: str, problem: str) -> None:
        await runner.load(program(tmp_path, STREAMS))
        got = []
        with pytest.raises(ModuleFailed, match=problem):
            async for item in runner.stream(function, [1], {}):
                got.append(item)
        assert got == [0]

    async def test_one_that_breaks_when_it_is_closed(self, runner: InProcessRunner, tmp_path: Path) -> None:
        await runner.load(program(tmp_path, STREAMS))
        items = runner.stream("stubborn", [1], {})
        await anext(items)
        with pytest.raises(ModuleFailed, match="KeyError: 'mine'"):
            await items.aclose()

    async def test_calling_and_streaming_are_not_mixed_up(self, runner: InProcessRunner, tmp_path: Path) -> None:
        await runner.load(program(tmp_path, STREAMS))
        for function in ("numbers", "waits"):
            with pytest.raises(ModuleFailed, match=f"{function} gives a generator: stream it"):
                await runner.call(function, [1], {})
        with pytest.raises(ModuleFailed, match="plain gives no generator: call it"):
            await anext(runner.stream("plain", [1], {}))
        with pytest.raises(InvalidInput):
            await anext(runner.stream("numbers", [], {}))

    async def test_one_that_outlives_its_runner(self, runner: InProcessRunner, tmp_path: Path) -> None:
        await runner.load(program(tmp_path, STREAMS))
        items = runner.stream("numbers", [3], {})
        await anext(items)
        await runner.close()
        await items.aclose()


STATEFUL = """
class Store:
    def __init__(self): self.state = {"count": 1}
    def look(self): return self.state
    def put(self, state): self.state = state
    def export_state(self): return self.state
    async def import_state(self, state, from_version): self.state = (state, from_version)
"""


class TestState:
    @pytest.mark.parametrize(("plain", "mark"), [(True, PLAIN), (False, PICKLED)])
    async def test_goes_from_one_to_the_next(self, tmp_path: Path, plain: bool, mark: bytes) -> None:
        old, new = InProcessRunner(plain_state=plain), InProcessRunner()
        await old.load(program(tmp_path, STATEFUL, "Store"))
        await new.load(program(tmp_path, STATEFUL, "Store"))
        state = await old.export_state()
        assert state[:1] == mark
        await new.import_state(state, "1.0")
        assert await new.call("look", [], {}) == ({"count": 1}, "1.0")
        await new.close()
        await old.close()

    async def test_what_cannot_be_packed(self, tmp_path: Path) -> None:
        for plain, problem in ((True, "must be plain data; it holds a value of type lock"), (False, "cannot pickle")):
            runner = InProcessRunner(plain_state=plain)
            await runner.load(program(tmp_path, STATEFUL, "Store"))
            await runner.call("put", [threading.Lock()], {})
            with pytest.raises(ModuleFailed, match=problem):
                await runner.export_state()
            with pytest.raises(ModuleFailed):
                await runner.import_state(b"Mxxx", "1.0")
            await runner.close()

    async def test_a_module_that_has_none(self, runner: InProcessRunner, tmp_path: Path) -> None:
        await runner.load(program(tmp_path, "x = 1"))
        with pytest.raises(ModuleFailed, match="has no function 'export_state', which a module that has state needs"):
            await runner.export_state()
        with pytest.raises(ModuleFailed, match="has no function 'import_state'"):
            await runner.import_state(b"", "1.0")


class TestOutput:
    async def test_is_limited(self, runner: InProcessRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        target = io.StringIO()
        monkeypatch.setattr(sys, "stdout", target)
        await runner.load(program(tmp_path, "def talk(much):\n    for _ in range(much): print('x' * 2**20)"))
        await runner.call("talk", [30], {})
        await runner.call("talk", [1], {})
        await runner.close()
        assert 10 * 2**20 < len(target.getvalue()) < 10 * 2**20 + 100
        assert target.getvalue().count("characters were printed; the rest is dropped") == 1

    def test_passes_for_a_stream(self, tmp_path: Path) -> None:
        with (tmp_path / "out").open("w", encoding="utf-8") as file:
            stream = LimitedOutput(file, limit=3)
            assert (stream.write("ab"), stream.write("cd"), stream.write("ef")) == (2, 2, 2)
            stream.flush()
            assert (stream.encoding, stream.fileno(), stream.buffer) == ("utf-8", file.fileno(), file.buffer)
            assert stream.writable() and not stream.isatty()
        assert (tmp_path / "out").read_text() == "abc\n[3 characters were printed; the rest is dropped]\n"

    async def test_streams_that_somebody_else_put_there_stay(self, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.setattr(sys, "stdout", io.StringIO())
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        runner = InProcessRunner()
        await runner.load(program(tmp_path, "x = 1"))
        sys.stdout, sys.stderr = others = io.StringIO(), io.StringIO()
        await runner.close()
        assert (sys.stdout, sys.stderr) == others
