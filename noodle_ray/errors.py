"""The exception tree: every error that noodle-ray raises on purpose.

NoodleError
├── InvalidInput            something given from outside is wrong; lists every fault
│   └── InvalidSettings     … in a NOODLE_* variable
├── TooLarge                a body, a picture, a sound or a text is over its limit
├── Unauthorized            no token, or a wrong one
├── NotFound                no such node, allocation, module, service, pack
├── Conflict                the name is taken, the thing is in use, the state forbids it
│   └── Incompatible        … and a new version would break callers of the old one
├── LimitReached            a configured maximum is reached
├── DoesNotFit              a demand cannot be placed; carries the refusal
├── Unresolvable            no set of module versions satisfies the requirements
├── ModuleFailed            a module's own code raised
├── CallInterrupted         the host of a call ended before it answered: it may have run, or not
├── DeadlineExceeded        the answer would have come too late
├── Unavailable             a component is not there (yet, or any more)
├── Overloaded              there is more to do than can be done in time; try again a little later
└── CorruptData             stored or fetched bytes are not what their hash says

Errors carry objects, survive pickling (so they cross Ray), and render themselves for HTTP with `to_json`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noodle_ray.placement.refusal import Refusal


def _restore(cls: type[NoodleError], args: tuple[object, ...], state: dict[str, Any]) -> NoodleError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class NoodleError(Exception):
    """Base of the tree. `code` is stable and machine-readable; `str(error)` is for people."""

    code = "noodle_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__.copy())

    def details(self) -> dict[str, Any]:
        """What a program can use: JSON-ready, never more than the message already tells."""
        return {}

    def to_json(self) -> dict[str, Any]:
        return {"error": {"code": self.code, "message": self.message, **self.details()}}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with one field: where, what was given (shortened), and what is allowed."""

    field: str
    problem: str
    given: str = ""

    def __str__(self) -> str:
        given = f" (given: {self.given})" if self.given else ""
        return f"{self.field}: {self.problem}{given}"


class InvalidInput(NoodleError):
    """Something given from outside is wrong. `faults` lists everything found, not only the first."""

    code = "invalid_input"

    def __init__(self, faults: Sequence[Fault], subject: str = "input") -> None:
        self.faults = tuple(faults)
        super().__init__(f"invalid {subject}: " + "; ".join(map(str, self.faults)))

    @classmethod
    def of(cls, field: str, problem: str, given: object = "") -> InvalidInput:
        return cls([Fault(field, problem, shorten(given))])

    def details(self) -> dict[str, Any]:
        return {"faults": [{"field": f.field, "problem": f.problem, "given": f.given} for f in self.faults]}


class InvalidSettings(InvalidInput):
    """A NOODLE_* variable is unknown or has a value that is not allowed."""

    code = "invalid_settings"

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(faults, subject="settings")


class TooLarge(NoodleError):
    """A body, picture, sound or text is over its limit."""

    code = "too_large"

    def __init__(self, field: str, size: int, limit: int, unit: str) -> None:
        self.field, self.size, self.limit, self.unit = field, size, limit, unit
        super().__init__(f"{field} is too large: {size} {unit}, allowed are {limit}")

    def details(self) -> dict[str, Any]:
        return {"field": self.field, "size": self.size, "limit": self.limit, "unit": self.unit}


class Unauthorized(NoodleError):
    """No token, or a wrong one."""

    code = "unauthorized"


class NotFound(NoodleError):
    """No such thing. `kind` is what was looked for ("node", "module", …), `key` its name."""

    code = "not_found"

    def __init__(self, kind: str, key: str, known: Sequence[str] = ()) -> None:
        self.kind, self.key, self.known = kind, shorten(key), tuple(known)
        hint = f"; known: {', '.join(self.known)}" if self.known else ""
        super().__init__(f"no {kind} {self.key!r}{hint}")

    def details(self) -> dict[str, Any]:
        return {"kind": self.kind, "key": self.key, "known": list(self.known)}


class Conflict(NoodleError):
    """The request contradicts what is there: a name is taken, a thing is in use, a state forbids it."""

    code = "conflict"


class Incompatible(Conflict):
    """A new version would break callers of the one that runs. `changes` are told one by one."""

    code = "incompatible"

    def __init__(self, message: str, changes: Sequence[str]) -> None:
        self.changes = tuple(changes)
        super().__init__(message)

    def details(self) -> dict[str, Any]:
        return {"changes": list(self.changes)}


class LimitReached(NoodleError):
    """A configured maximum is reached. `setting` names the variable that raises it."""

    code = "limit_reached"

    def __init__(self, what: str, limit: int, setting: str) -> None:
        self.what, self.limit, self.setting = what, limit, setting
        super().__init__(f"the limit of {limit} {what} is reached ({setting} sets it)")

    def details(self) -> dict[str, Any]:
        return {"what": self.what, "limit": self.limit, "setting": self.setting}


class DoesNotFit(NoodleError):
    """A demand cannot be placed. `refusal` says which dimension fails on how many nodes, and what would help."""

    code = "does_not_fit"

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(str(refusal))

    def details(self) -> dict[str, Any]:
        return {
            "nodes": self.refusal.nodes,
            "failed_on": dict(self.refusal.failed_on),
            "best": dict(self.refusal.best),
            "never": self.refusal.never,
        }


class Unresolvable(NoodleError):
    """No set of module versions satisfies the requirements; the message explains why."""

    code = "unresolvable"


class ModuleFailed(NoodleError):
    """A module's own code raised, or its host died while it was loaded. `trace` is the module's traceback."""

    code = "module_failed"

    def __init__(self, module: str, problem: str, trace: str = "") -> None:
        self.module, self.problem, self.trace = module, problem, trace
        super().__init__(f"module {module} failed: {problem}")

    def details(self) -> dict[str, Any]:
        return {"module": self.module, "problem": self.problem}


class CallInterrupted(NoodleError):
    """The host of a call ended before it answered. The function may have run to its end, in part, or not at all."""

    code = "call_interrupted"

    def __init__(self, module: str, function: str, problem: str) -> None:
        self.module, self.function = module, function
        super().__init__(f"the call of {module}.{function} was interrupted: {problem}")

    def details(self) -> dict[str, Any]:
        return {"module": self.module, "function": self.function}


class DeadlineExceeded(NoodleError):
    """The answer would have come after its deadline."""

    code = "deadline_exceeded"

    def __init__(self, what: str, limit_ms: float) -> None:
        self.what, self.limit_ms = what, limit_ms
        super().__init__(f"{what} did not finish within {limit_ms:g} ms")

    def details(self) -> dict[str, Any]:
        return {"what": self.what, "limit_ms": self.limit_ms}


class Unavailable(NoodleError):
    """A component is not there (yet, or any more): worth another try later."""

    code = "unavailable"


class Overloaded(NoodleError):
    """More is asked than can be answered in time: it was not begun, and may be tried again after `retry_after_s`."""

    code = "overloaded"

    def __init__(self, what: str, retry_after_s: float) -> None:
        super().__init__(
            f"{what} has more to do than it can answer in time; try again in {max(0.1, retry_after_s):.1f} s"
        )
        self.retry_after_s = retry_after_s

    def details(self) -> dict[str, Any]:
        return {"retry_after_s": round(self.retry_after_s, 3)}


class CorruptData(NoodleError):
    """Stored or fetched bytes are not what their hash says, or a needed file is missing."""

    code = "corrupt_data"


def shorten(value: object, limit: int = 80) -> str:
    """A value as it may be shown in a message: one line, never more than `limit` characters."""
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("utf-8", "backslashreplace").decode().replace("\n", "\\n")
    return text if len(text) <= limit else text[: limit - 1] + "…"
