"""A module's code in a child process: what it gives, and that whatever it does there harms nobody here."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgpack
import pytest
from runner_programs import program

from noodle_ray.errors import InvalidInput, ModuleFailed, NoodleError, NotFound, Unavailable
from noodle_ray.runners import child_process, frames, sandboxed
from noodle_ray.runners.sandboxed import SandboxedRunner

ROOT = Path(__file__).parents[2]
LIMIT_S = 30

CODE = """
import asyncio, os, signal, subprocess, sys, threading, time

def pid(): return os.getpid()
def echo(*args, **kwargs): return [args, kwargs]
async def waits(value): await asyncio.sleep(0.01); return value
def environment(): return dict(os.environ)
def sleep(seconds): time.sleep(seconds)
async def block(seconds): time.sleep(seconds)
def exits(code): os._exit(code)
def raises(): raise ValueError("no")
def lock(): return threading.Lock()
def keyed(): return {1: 2}
def big(size): return b"x" * size
def talk(megabytes):
    for _ in range(megabytes): print("x" * 2**20)
    return "said"
def leaves_a_fork():
    child = os.fork()
    if not child:
        time.sleep(600)
    return child
def ignores_sigterm():
    return None
def numbers(upto):
    try:
        for number in range(upto):
            yield number
    finally:
        open("closed", "w").close()
async def slow(upto):
    try:
        for number in range(upto):
            await asyncio.sleep(0.2)
            yield number
    finally:
        open("closed", "w").close()
def is_closed(): return os.path.exists("closed")
cancelled = []
async def hangs():
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        cancelled.append(1)
        raise
def cancellations(): return len(cancelled)
"""


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    """A child that is waited for in vain fails its test."""

    def fail(*_: object) -> None:
        pytest.fail(f"not done within {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[SandboxedRunner]:
    runner = SandboxedRunner()
    await runner.load(program(tmp_path, CODE))
    yield runner
    await runner.close()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    while not await holds():  # noqa: ASYNC110 - what is waited for is in another process
        await asyncio.sleep(0.02)


def is_there(path: str) -> bool:
    return Path(path).exists()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def is_gone(pid: int) -> bool:
    return not is_alive(pid)


class TestCalling:
    async def test_runs_elsewhere(self, runner: SandboxedRunner) -> None:
        assert await runner.call("pid", [], {}) != os.getpid()
        await runner.check()

    @pytest.mark.parametrize(
        "value",
        [
            None,
            True,
            0,
            -(2**63),
            2**64 - 1,
            1.5,
            math.inf,
            "ü",
            b"\x00",
            [1, [2]],
            {"a": {"b": [None]}},
            [0.5] * 10_000,
        ],
        ids=lambda value: str(value)[:20],
    )
    async def test_plain_data_goes_there_and_back(self, runner: SandboxedRunner, value: Any) -> None:
        assert await runner.call("echo", [value], {"key": value}) == [[value], {"key": value}]

    async def test_tuples_become_lists(self, runner: SandboxedRunner) -> None:
        assert await runner.call("echo", [(1, (2,))], {}) == [[[1, [2]]], {}]

    async def test_many_at_once(self, runner: SandboxedRunner) -> None:
        calls = [runner.call("waits" if number % 2 else "echo", [number], {}) for number in range(200)]
        answers = await asyncio.gather(*calls)
        assert answers == [number if number % 2 else [[number], {}] for number in range(200)]

    @pytest.mark.parametrize(
        ("value", "problem"),
        [
            ({1, 2}, "a value of type set"),
            (object(), "a value of type object"),
            ({1: 2}, "a dict with a key of type int"),
            ([{"a": [2**64]}], "an int of more than 64 bits"),
            ("\ud800", "cannot be packed"),
            (msgpack.ExtType(1, b"x"), "a value of type ExtType"),
            (b"x" * (frames.MAX_FRAME_BYTES + 1), "bytes, allowed are"),
        ],
        ids=lambda value: str(value)[:20],
    )
    async def test_other_arguments_are_refused(self, runner: SandboxedRunner, value: Any, problem: str) -> None:
        with pytest.raises(InvalidInput, match=problem):
            await runner.call("echo", [value], {})
        assert await runner.call("echo", [1], {}) == [[1], {}]

    async def test_what_nests_too_much_is_refused(self, runner: SandboxedRunner) -> None:
        circle: list[Any] = []
        circle += [circle, circle]
        with pytest.raises(InvalidInput, match="more than 100 deep"):
            await runner.call("echo", [circle], {})
        with pytest.raises(InvalidInput, match=f"more than {frames.MAX_CONTAINERS} lists and dicts"):
            await runner.call("echo", [[[[]] for _ in range(frames.MAX_CONTAINERS)]], {})

    @pytest.mark.parametrize(
        ("function", "args", "error", "problem"),
        [
            ("nothing", [], NotFound, r"no function 'prog\.nothing'; known: big, block"),
            ("raises", [1], InvalidInput, "arguments: too many positional arguments"),
            ("raises", [], ModuleFailed, "ValueError: no"),
            ("lock", [], ModuleFailed, "can give plain data only; this was a value of type lock"),
            ("keyed", [], ModuleFailed, "a dict with a key of type int"),
            ("big", [frames.MAX_FRAME_BYTES], ModuleFailed, "bytes, allowed are"),
            ("numbers", [1], ModuleFailed, "stream it"),
        ],
    )
    async def test_what_goes_wrong(
        self, runner: SandboxedRunner, function: str, args: list[Any], error: type[NoodleError], problem: str
    ) -> None:
        with pytest.raises(error, match=problem) as raised:
            await runner.call(function, args, {})
        if function == "raises" and isinstance(raised.value, ModuleFailed):
            assert "in raises" in raised.value.trace

    async def test_a_large_result(self, runner: SandboxedRunner) -> None:
        assert len(await runner.call("big", [frames.MAX_FRAME_BYTES - 100], {})) == frames.MAX_FRAME_BYTES - 100

    async def test_a_cancelled_call_is_cancelled_there(self, runner: SandboxedRunner) -> None:
        call = asyncio.ensure_future(runner.call("hangs", [], {}))
        await runner.call("pid", [], {})
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

        async def knows() -> bool:
            return bool(await runner.call("cancellations", [], {}) == 1)

        await until(knows)

    async def test_sees_nothing_of_our_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NOODLE_TOKEN", "secret")
        monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
        runner = SandboxedRunner()
        await runner.load(program(tmp_path, CODE))
        seen = await runner.call("environment", [], {})
        allowed = {*child_process.PASSED_ON, "HOME", "TMPDIR", "PYTHONPATH", "LC_CTYPE", "PWD"}
        assert seen.keys() <= allowed
        assert is_there(seen["HOME"])
        await runner.close()
        assert not is_there(seen["HOME"])


class TestStreaming:
    async def test_all_of_it(self, runner: SandboxedRunner) -> None:
        assert [item async for item in runner.stream("numbers", [3], {})] == [0, 1, 2]
        assert await runner.call("is_closed", [], {})

    async def test_closed_early(self, runner: SandboxedRunner) -> None:
        async with aclosing(runner.stream("numbers", [1000], {})) as items:
            assert [await anext(items), await anext(items)] == [0, 1]
            assert not await runner.call("is_closed", [], {})
        assert await runner.call("is_closed", [], {})

    async def test_given_up_while_an_item_is_made(self, runner: SandboxedRunner) -> None:
        items = runner.stream("slow", [10], {})
        waiting = asyncio.ensure_future(anext(items))
        await asyncio.sleep(0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await runner.call("is_closed", [], {})

    async def test_what_goes_wrong(self, runner: SandboxedRunner) -> None:
        for function, error in (("pid", ModuleFailed), ("nothing", NotFound)):
            with pytest.raises(error):
                await anext(runner.stream(function, [], {}))


class TestLoading:
    @pytest.mark.parametrize(
        ("code", "problem", "trace"),
        [
            ("1 / 0", "ZeroDivisionError", "1 / 0"),
            ("import sys; sys.exit(3)", "SystemExit: 3", ""),
            ("import os; print('last words', flush=True); os._exit(3)", r"process ended \(exit code 3\)", "last words"),
            ("import ctypes; ctypes.string_at(0)", "SIGSEGV", "Segmentation fault"),
        ],
    )
    async def test_what_fails(self, tmp_path: Path, code: str, problem: str, trace: str) -> None:
        runner = SandboxedRunner()
        with pytest.raises(ModuleFailed, match=problem) as failed:
            await runner.load(program(tmp_path, code))
        assert trace in failed.value.trace
        await runner.close()

    async def test_names_that_are_taken(self, tmp_path: Path) -> None:
        runner = SandboxedRunner()
        given = program(tmp_path, "x = 1")
        (given.folders[0] / "numpy.py").touch()
        with pytest.raises(InvalidInput, match="'numpy'"):
            await runner.load(given)
        await runner.close()

    async def test_an_unwell_one(self, tmp_path: Path) -> None:
        runner = SandboxedRunner()
        await runner.load(program(tmp_path, "def well(): return False", health_check="well"))
        with pytest.raises(ModuleFailed, match="its health check answered False"):
            await runner.check()
        await runner.close()

    async def test_one_that_is_not_loaded(self, tmp_path: Path) -> None:
        runner = SandboxedRunner()
        with pytest.raises(ModuleFailed, match="it was not loaded"):
            await runner.call("x", [], {})
        await runner.ended()
        await runner.close()

    async def test_no_process_to_be_had(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
        with pytest.raises(Unavailable, match="no process can be started for prog"):
            await SandboxedRunner().load(program(tmp_path, "x = 1"))


STATEFUL = """
class Store:
    def __init__(self): self.state = {"count": 1}
    def look(self): return self.state
    def put_a_set(self): self.state = {1}
    def export_state(self): return self.state
    def import_state(self, state, from_version): self.state = [state, from_version]
"""


class TestState:
    async def test_goes_from_one_to_the_next(self, tmp_path: Path) -> None:
        old, new = SandboxedRunner(), SandboxedRunner()
        await old.load(program(tmp_path, STATEFUL, "Store"))
        await new.load(program(tmp_path, STATEFUL, "Store"))
        await new.import_state(await old.export_state(), "1.0")
        assert await new.call("look", [], {}) == [{"count": 1}, "1.0"]
        await old.call("put_a_set", [], {})
        with pytest.raises(ModuleFailed, match="must be plain data"):
            await old.export_state()
        await old.close()
        await new.close()

    async def test_a_pickle_that_calls_itself_a_state_is_refused(self, tmp_path: Path) -> None:
        code = "from noodle_ray.runners.in_process import InProcessRunner\n"
        code += "async def evil(self): return b'P evil'\nInProcessRunner.export_state = evil"
        runner = SandboxedRunner()
        await runner.load(program(tmp_path, code))
        with pytest.raises(ModuleFailed, match="not packed as plain data"):
            await runner.export_state()
        await runner.close()


class TestDeath:
    async def test_by_a_signal(self, runner: SandboxedRunner) -> None:
        pid = await runner.call("pid", [], {})
        running = [asyncio.ensure_future(runner.call("sleep", [60], {})) for _ in range(3)]
        await asyncio.sleep(0.1)
        os.kill(pid, signal.SIGKILL)
        for call in running:
            with pytest.raises(ModuleFailed, match=r"its process ended \(signal SIGKILL\)"):
                await call
        await runner.ended()
        with pytest.raises(ModuleFailed, match=r"its process ended \(signal SIGKILL\)"):
            await runner.call("pid", [], {})

    async def test_by_its_own_exit_during_a_stream(self, runner: SandboxedRunner) -> None:
        items = runner.stream("numbers", [1000], {})
        await anext(items)
        with pytest.raises(ModuleFailed, match=r"exit code 7"):
            await runner.call("exits", [7], {})
        with pytest.raises(ModuleFailed, match="exit code 7"):
            await anext(items)

    async def test_what_was_answered_before_it_is(self, tmp_path: Path) -> None:
        code = "import os, threading as t\ndef go():\n    t.Timer(0.2, os._exit, [0]).start()\n    return b'x' * 2**20"
        runner = SandboxedRunner()
        await runner.load(program(tmp_path, code))
        answers = await asyncio.gather(*(runner.call("go", [], {}) for _ in range(3)))
        assert [len(answer) for answer in answers] == [2**20] * 3
        await runner.ended()

    async def test_with_a_fork_left_behind(self, runner: SandboxedRunner) -> None:
        left = await runner.call("leaves_a_fork", [], {})
        assert is_alive(left)
        with pytest.raises(ModuleFailed, match="exit code 0"):
            await runner.call("exits", [0], {})
        await until(lambda: is_gone(left))

    @pytest.mark.parametrize("function", ["sleep", "block"])
    async def test_of_one_that_hangs(self, runner: SandboxedRunner, function: str) -> None:
        pid = await runner.call("pid", [], {})
        call = asyncio.ensure_future(runner.call(function, [600], {}))
        await asyncio.sleep(0.1)
        start = time.monotonic()
        await runner.close()
        assert time.monotonic() - start < 3
        assert not is_alive(pid)
        with pytest.raises(ModuleFailed, match="it was closed"):
            await call

    async def test_of_one_that_does_not_want_to(self, tmp_path: Path) -> None:
        code = "import signal, threading, os, time\ndef pid(): return os.getpid()\n"
        code += "def stubborn():\n    import ctypes\n    ctypes.CDLL(None).signal(15, 1)\n"
        runner = SandboxedRunner()
        await runner.load(program(tmp_path, code))
        pid = await runner.call("pid", [], {})
        await runner.call("stubborn", [], {})
        start = time.monotonic()
        await runner.close()
        assert 0.9 < time.monotonic() - start < 5
        assert not is_alive(pid)
        await runner.close()

    async def test_of_the_parent(self, tmp_path: Path) -> None:
        given = program(tmp_path, CODE)
        script = f"""
import asyncio, os
from pathlib import Path
from noodle_ray.runners.runner import Program
from noodle_ray.runners.sandboxed import SandboxedRunner
async def main():
    runner = SandboxedRunner()
    await runner.load(Program("prog", (Path({str(given.folders[0])!r}),), {given.entry_point!r}))
    print(await runner.call("pid", [], {{}}), flush=True)
    await runner.call("block", [600], {{}})
asyncio.run(main())
"""
        parent = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, cwd=ROOT
        )
        assert parent.stdout is not None
        pid = int(await parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
        await parent.wait()
        await until(lambda: is_gone(pid))

    async def test_by_a_task_that_exits(self, tmp_path: Path) -> None:
        code = "import asyncio\nasync def leave(): raise SystemExit(5)\n"
        code += "async def go():\n    task = asyncio.create_task(leave())\n    await asyncio.sleep(60)\n"
        runner = SandboxedRunner()
        await runner.load(program(tmp_path, code))
        with pytest.raises(ModuleFailed, match="exit code 1") as failed:
            await runner.call("go", [], {})
        assert "SystemExit: 5" in failed.value.trace


class TestOutput:
    async def test_a_flood_harms_nothing(self, tmp_path: Path) -> None:
        code = "import os\ndef flood(mega):\n    for _ in range(mega): os.write(1, b'x' * 2**20)\n    return 'said'"
        runner = SandboxedRunner()
        await runner.load(program(tmp_path, code))
        assert await runner.call("flood", [200], {}) == "said"
        assert runner._process is not None
        assert len(runner._process.output) <= child_process.KEPT_OUTPUT_BYTES
        await runner.close()

    async def test_prints_are_limited_there_already(self, runner: SandboxedRunner) -> None:
        assert await runner.call("talk", [200], {}) == "said"


def rogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: str) -> SandboxedRunner:
    """A runner whose child reads one message, and then does this with `connection` and `number`."""
    name = f"rogue_{abs(hash(answers))}"
    (tmp_path / f"{name}.py").write_text(f"""
import os, socket, sys, time
import msgpack
connection = socket.socket(fileno=int(sys.argv[1]))
length = int.from_bytes(connection.recv(4), "big")
number = msgpack.unpackb(connection.recv(length))[0]
def send(message):
    packed = msgpack.packb(message)
    connection.sendall(len(packed).to_bytes(4, "big") + packed)
{answers}
time.sleep(600)
""")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return SandboxedRunner(name)


class TestLies:
    """The child is not trusted: whatever it sends, the parent's calls end, and it is ended."""

    @pytest.mark.parametrize(
        ("answers", "problem"),
        [
            ("connection.sendall(b'\\xff' * 100)", "a message of 4294967295 bytes, allowed are"),
            ("connection.sendall(b'\\0\\0\\0\\3\\xc1\\xc1\\xc1')", "FormatError"),
            ("connection.sendall(b'\\0\\0\\0\\3\\xc0\\xc0\\xc0')", "ExtraData"),
            ("send('hello')", "neither a result nor an error"),
            ("send([number, 'ok'])", "neither a result nor an error"),
            ("send(['1', 'ok', None])", "neither a result nor an error"),
            ("send([number, 'error', ['os_error', 'x']])", "an error of no known kind"),
            ("send([number, 'error', ['not_found', 'a', 'b', [1]]])", "a name that is no text"),
            ("send([number, 'error', ['invalid_input', [1]]])", "a fault that has not three texts"),
            ("send([number, 'ok', msgpack.ExtType(5, b'x')])", "a value of type ExtType"),
            ("send([number, 'ok', msgpack.Timestamp(5)])", "a value of type Timestamp"),
            ("send([number, 'ok', {b'x': 1}])", "a key of type bytes"),
            ("send([number, 'ok', [[] for _ in range(2**20)]])", "more than 1048576 lists"),
            ("x = 1\nfor _ in range(200): x = [x]\nsend([number, 'ok', x])", "more than 100 deep"),
            ("connection.close()", "its process ended"),
            ("connection.sendall(b'\\0\\0'); os._exit(0)", r"its process ended \(exit code 0\)"),
            ("os.kill(os.getpid(), 34)", r"signal (34|SIGRTMIN)"),
        ],
    )
    async def test_are_seen(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: str, problem: str) -> None:
        monkeypatch.setattr(sandboxed, "LAST_WORDS_S", 0.3)
        runner = rogue(tmp_path, monkeypatch, answers)
        with pytest.raises(ModuleFailed, match=problem):
            await runner.load(program(tmp_path, "x = 1"))
        await runner.ended()
        with pytest.raises(ModuleFailed, match=problem):
            await runner.check()
        await runner.close()

    async def test_answers_that_nobody_waits_for_are_dropped(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lies = "send([99, 'ok', 1]); send([-1, 'error', ['module_failed', 'x', 'y']]); send([number, 'ok', None]);"
        runner = rogue(tmp_path, monkeypatch, lies + "send([number, 'ok', 'twice'])")
        await runner.load(program(tmp_path, "x = 1"))
        await runner.close()

    async def test_an_error_is_one_of_this_module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        runner = rogue(tmp_path, monkeypatch, "send([number, 'error', ['module_failed', 'x' * 10**6, 'y' * 10**6]])")
        with pytest.raises(ModuleFailed) as failed:
            await runner.load(program(tmp_path, "x = 1"))
        assert failed.value.module == "prog"
        assert (len(failed.value.problem), len(failed.value.trace)) == (10_000, 64 * 2**10)
        await runner.close()

    async def test_a_child_that_reads_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        runner = rogue(tmp_path, monkeypatch, "send([number, 'ok', None])")
        await runner.load(program(tmp_path, "x = 1"))
        calls = [asyncio.ensure_future(runner.call("x", [b"x" * 2**20], {})) for _ in range(10)]
        await asyncio.sleep(0.2)
        await runner.close()
        for call in calls:
            with pytest.raises(ModuleFailed, match="it was closed"):
                await call
