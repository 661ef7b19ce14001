"""Errors as plain data, so that they cross from a process that is not trusted: three kinds, and nothing else."""

from __future__ import annotations

from typing import Any

from noodle_ray.errors import Fault, InvalidInput, ModuleFailed, NoodleError, NotFound
from noodle_ray.runners.frames import Malformed

MAX_PROBLEM = 10_000
MAX_TRACE = 64 * 2**10
"""Characters of a problem and of a traceback: what is beyond is cut off."""

_MAX_NAMES = 1000


def to_plain(error: NotFound | InvalidInput | ModuleFailed) -> list[Any]:
    match error:
        case NotFound():
            return ["not_found", error.kind, error.key, list(error.known)]
        case InvalidInput():
            return ["invalid_input", [[fault.field, fault.problem, fault.given] for fault in error.faults]]
        case _:
            return ["module_failed", error.problem, error.trace]


def from_plain(module: str, plain: object) -> NoodleError:
    """The error again; it is always one of this module. Raises Malformed."""
    match plain:
        case ["not_found", str(kind), str(key), list(known)]:
            return NotFound(kind[:100], key, [_text(name, 200) for name in known[:_MAX_NAMES]])
        case ["invalid_input", list(faults)]:
            return InvalidInput([_fault(fault) for fault in faults[:_MAX_NAMES]])
        case ["module_failed", str(problem), str(trace)]:
            return ModuleFailed(module, problem[:MAX_PROBLEM], trace[-MAX_TRACE:])
    raise Malformed("an error of no known kind")


def _fault(plain: object) -> Fault:
    match plain:
        case [str(field), str(problem), str(given)]:
            return Fault(field[:200], problem[:MAX_PROBLEM], given[:200])
    raise Malformed("a fault that has not three texts")


def _text(value: object, limit: int) -> str:
    if not isinstance(value, str):
        raise Malformed("a name that is no text")
    return value[:limit]
