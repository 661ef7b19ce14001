"""Errors carry objects, survive pickling, and render themselves for HTTP."""

import pickle

import pytest

from noodle_ray.errors import (
    CallInterrupted,
    Conflict,
    CorruptData,
    DeadlineExceeded,
    DoesNotFit,
    Fault,
    Incompatible,
    InvalidInput,
    InvalidSettings,
    LimitReached,
    ModuleFailed,
    NoodleError,
    NotFound,
    Overloaded,
    TooLarge,
    Unauthorized,
    Unavailable,
    Unresolvable,
    shorten,
)
from noodle_ray.placement.refusal import Refusal

ERRORS = [
    InvalidInput([Fault("a.b", "must be small", "9")]),
    InvalidSettings([Fault("NOODLE_X", "is no setting")]),
    TooLarge("image", 9, 5, "bytes"),
    Unauthorized("no token"),
    NotFound("node", "n1", ["n2", "n3"]),
    Conflict("taken"),
    Incompatible("it would break callers", ["f is gone"]),
    LimitReached("modules", 3, "NOODLE_MAX_MODULES"),
    DoesNotFit(Refusal("1 CPU", 0, {}, {}, True)),
    Unresolvable("because"),
    ModuleFailed("m 1.0", "boom", "Traceback"),
    CallInterrupted("m", "f", "its host ended"),
    DeadlineExceeded("fusion", 200),
    Unavailable("away"),
    Overloaded("fusion", 0.04),
    CorruptData("bad hash"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling(error: NoodleError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.to_json() == error.to_json()


def test_every_kind_is_in_that_list_and_in_the_tree() -> None:
    import noodle_ray.errors

    def below(kind: type[NoodleError]) -> set[type[NoodleError]]:
        return {kind}.union(*(below(child) for child in kind.__subclasses__()))

    kinds = {kind for kind in below(NoodleError) if kind.__module__ == "noodle_ray.errors"}
    assert kinds - {NoodleError} == {type(error) for error in ERRORS}
    assert all(kind.__name__ in (noodle_ray.errors.__doc__ or "") for kind in kinds)
    assert len({kind.code for kind in kinds}) == len(kinds)


def test_messages_name_what_is_wrong() -> None:
    assert str(ERRORS[0]) == "invalid input: a.b: must be small (given: 9)"
    assert str(ERRORS[2]) == "image is too large: 9 bytes, allowed are 5"
    assert str(ERRORS[4]) == "no node 'n1'; known: n2, n3"
    assert InvalidInput.of("x", "must be y", 3).faults == (Fault("x", "must be y", "3"),)


def test_json_has_code_message_and_details() -> None:
    assert NotFound("node", "n1").to_json() == {
        "error": {"code": "not_found", "message": "no node 'n1'", "kind": "node", "key": "n1", "known": []}
    }
    assert Conflict("taken").to_json() == {"error": {"code": "conflict", "message": "taken"}}


def test_what_was_given_is_shortened_and_made_printable() -> None:
    assert shorten("a" * 100) == "a" * 79 + "…"
    assert shorten("two\nlines") == "two\\nlines"
    assert shorten("\ud800") == "\\ud800"
    assert shorten({"a": 1}) == "{'a': 1}"
