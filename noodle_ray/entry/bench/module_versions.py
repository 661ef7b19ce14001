"""Modules to measure with: small ones to load and call, and versions to swap between, some broken on purpose."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Literal

from noodle_ray.modules.archive import write_entries

Breakage = Literal["unwell", "import-error", "failing", "import-state"]
"""How a version is broken: its health check says no, it cannot be imported, its calls fail, it cannot take state on."""

GOOD = ("1.0.0", "2.0.0")
BROKEN: Mapping[Breakage, str] = {
    "unwell": "3.0.0",
    "import-error": "4.0.0",
    "failing": "5.0.0",
    "import-state": "6.0.0",
}
ON_PURPOSE = "broken on purpose"
"""What every error of a broken version says."""

ECHO = "bench-echo"
WORKING = {"stateless": "bench-stateless", "stateful": "bench-stateful"}

_ECHO_CODE = '''"""As small as they come: what is timed is the way here and back."""

VERSION = "{version}"


class Echo:
    def echo(self, value):
        return value

    async def echo_async(self, value):
        return value
'''

_WORK_CODE = '''"""Writes down each call that runs: who called, which call of theirs it was, where and when it ran."""

import os
import threading
import time

VERSION = "{version}"
BREAKAGE = "{breakage}"
_files = {{}}

if BREAKAGE == "import-error":
    raise ImportError("{on_purpose}")


def _note(log, session, number):
    path = os.path.join(log, f"{{os.getpid()}}.log")
    if path not in _files:
        _files[path] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    line = f"{{session}} {{number}} {{os.getpid()}} {{VERSION}} {{time.monotonic_ns()}}\\n"
    os.write(_files[path], line.encode())


class Work:
    def work(self, log, session, number):
        if BREAKAGE == "failing":
            raise RuntimeError("{on_purpose}")
        _note(log, session, number)
        return VERSION

    def pid(self):
        return os.getpid()

    def is_well(self):
        return BREAKAGE != "unwell"
'''

_STATE_CODE = '''

class Remembering(Work):
    """Keeps the numbers of all calls that ran, by session, as ranges: those of a session come one after another."""

    def __init__(self):
        self._lock = threading.Lock()
        self._ran = {{}}

    def work(self, log, session, number):
        answer = super().work(log, session, number)
        with self._lock:
            ranges = self._ran.setdefault(session, [])
            if ranges and ranges[-1][1] == number - 1:
                ranges[-1][1] = number
            else:
                ranges.append([number, number])
        return answer

    def ran(self):
        return self.export_state()

    def export_state(self):
        with self._lock:
            return {{session: [list(one) for one in ranges] for session, ranges in self._ran.items()}}

    def import_state(self, state, from_version):
        if BREAKAGE == "import-state":
            raise RuntimeError("{on_purpose}")
        with self._lock:
            self._ran = {{session: [list(one) for one in ranges] for session, ranges in state.items()}}
'''


def echo_module(
    name: str,
    version: str = "1.0.0",
    resources: Mapping[str, float] | None = None,
    idempotent: bool = False,
    hosts: int = 1,
) -> bytes:
    """A packed module that gives back what it is given, and holds these resources while it is loaded, in each host.

    idempotent: it says so of its function, which is then called again where its host ends meanwhile.
    """
    more: dict[str, Any] = {"resources": dict(resources)} if resources else {}
    more |= {"idempotent": ["echo"]} if idempotent else {}
    more |= {"replicas": {"min": hosts, "max": hosts}} if hosts > 1 else {}
    return _packed(name, version, "Echo", _ECHO_CODE.format(version=version), more)


def work_module(kind: str, version: str) -> bytes:
    """One of the versions to swap between, packed; `kind` is "stateless" or "stateful"."""
    stateful = kind == "stateful"
    more: dict[str, Any] = {"health_check": "is_well"}
    if stateful:
        more["state"] = {"durable": True}
    code = _work_code(version) + (_filled(_STATE_CODE, version) if stateful else "")
    return _packed(WORKING[kind], version, "Remembering" if stateful else "Work", code, more)


def broken_versions(kind: str) -> list[Breakage]:
    """The ways in which a version of that kind can be broken."""
    return [breakage for breakage in BROKEN if kind == "stateful" or breakage != "import-state"]


def echo_class() -> Any:
    """The class of the small module, for those who run it without noodle-ray."""
    return _class_of(_ECHO_CODE.format(version="1.0.0"), "Echo")


def work_class(version: str) -> Any:
    """The stateless module's class in that version, for those who run it without noodle-ray."""
    return _class_of(_work_code(version), "Work")


def _class_of(code: str, name: str) -> Any:
    # In no file and under no name that can be imported: so Ray sends the code itself along, as that of a script.
    module = ModuleType("noodle_bench_rival")
    exec(compile(code, "<bench>", "exec"), module.__dict__)  # noqa: S102  (our own text)
    return getattr(module, name)


def _work_code(version: str) -> str:
    return _filled(_WORK_CODE, version)


def _filled(code: str, version: str) -> str:
    breakage = next((breakage for breakage, broken in BROKEN.items() if broken == version), "")
    return code.format(version=version, breakage=breakage, on_purpose=ON_PURPOSE)


def _packed(name: str, version: str, kind: str, code: str, more: Mapping[str, Any]) -> bytes:
    package = name.replace("-", "_")
    fields = {"name": name, "version": version, "entry_point": f"{package}:{kind}", **more}
    lines = ["[tool.noodle.module]", *(f"{field} = {_toml(value)}" for field, value in fields.items())]
    return write_entries({"pyproject.toml": "\n".join([*lines, ""]).encode(), f"{package}.py": code.encode()})


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)  # of texts, numbers and truth values TOML has the same spelling
