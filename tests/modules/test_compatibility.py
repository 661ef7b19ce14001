"""Whether a new version's functions take every call that the old one's took: against calls that Python takes."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noodle_ray.modules.compatibility import breaking_changes, interface_changes, state_changes, summary
from noodle_ray.modules.manifest import StateSpec
from noodle_ray.modules.signatures import Function, Parameter, read_functions


def functions(source: str, entry_point: str = "file") -> tuple[Function, ...] | None:
    return read_functions({"file.py": source.encode()}, entry_point)


def changes(old: str, new: str) -> list[str]:
    """Between two signatures of one function."""
    return breaking_changes(functions(f"def f{old}: ..."), functions(f"def f{new}: ..."))


class TestReading:
    def test_public_functions_with_their_parameters(self) -> None:
        source = """
def count(text: str, /, words: "list[str]" = (), *rest, deep: bool, **more) -> dict[str, int]: ...
async def stream() -> AsyncIterator[int]: ...
def lines():
    def inner(): yield 1
    return inner
def items(): yield 1
def _private(): ...
class Other: ...
"""
        assert functions(source) == (
            Function(
                name="count",
                parameters=(
                    Parameter(name="text", kind="positional", required=True, annotation="str"),
                    Parameter(name="words", kind="either", annotation="list[str]"),
                    Parameter(name="rest", kind="rest"),
                    Parameter(name="deep", kind="keyword", required=True, annotation="bool"),
                    Parameter(name="more", kind="keywords"),
                ),
                returns="dict[str, int]",
            ),
            Function(name="items", parameters=(), streams=True),
            Function(name="lines", parameters=()),
            Function(name="stream", parameters=(), returns="AsyncIterator[int]", streams=True),
        )

    @pytest.mark.parametrize(
        ("written", "told"),
        [
            ("f(a, /, b: int = 1, *, c, d=2) -> str", "f(a, /, b: int = …, *, c, d=…) → str"),
            ("f(*rest: int, c, **more)", "f(*rest: int, c, **more)"),
            ("f()", "f()"),
        ],
    )
    def test_a_signature_reads_as_it_was_written(self, written: str, told: str) -> None:
        found = functions(f"def {written}: ...")
        assert found is not None
        assert [function.text() for function in found] == [told]

    def test_all_says_which_are_public(self) -> None:
        found = functions("__all__ = ['b', '_c']\ndef a(): ...\ndef b(): ...\ndef _c(): ...")
        assert found is not None
        assert [function.name for function in found] == ["_c", "b"]
        assert functions("from elsewhere import b\n__all__ = ['b']") is None

    def test_methods_without_their_instance_those_of_bases_too(self) -> None:
        source = """
class Base:
    def shared(self, x): ...
    def mine(self): ...
class Counter(Base):
    def mine(self, y=1): ...
    @staticmethod
    def static(z): ...
    @classmethod
    def of(cls, w): ...
    @cached
    def wrapped(self, v): ...
    def _own(self): ...
"""
        found = functions(source, "file:Counter")
        assert found is not None
        named = {one.name: one.parameters and [each.name for each in one.parameters] for one in found}
        assert named == {"shared": ["x"], "mine": ["y"], "static": ["z"], "of": ["w"], "wrapped": None}

    @pytest.mark.parametrize(
        ("source", "entry_point"),
        [
            ("class A(elsewhere.B): ...", "file:A"),
            ("", "file:A"),
            ("def f(:", "file"),
            ("class A(A): ...", "file:A"),
        ],
    )
    def test_what_only_running_would_tell_is_unknown(self, source: str, entry_point: str) -> None:
        assert functions(source, entry_point) is None
        assert breaking_changes(None, ()) == []

    def test_what_may_be_a_function_is_told_apart(self) -> None:
        source = """
LIMIT = 3
shout = lambda text: text.upper()
log = get_logger()
try:
    def fast(): ...
except ImportError:
    fast = None
class Other: ...
"""
        found = functions(source)
        assert found is not None
        assert [(one.name, one.certain) for one in found] == [("fast", False), ("log", False), ("shout", False)]
        assert breaking_changes(functions("def fast(): ...\ndef shout(a): ..."), found) == []
        assert breaking_changes(found, functions("")) == []

    def test_properties_are_no_functions(self) -> None:
        source = "class A:\n    @property\n    def size(self): ...\n    def f(self): ..."
        assert functions(source, "file:A") == (Function(name="f", parameters=()),)

    def test_a_class_that_is_changed_as_it_is_made_is_unknown(self) -> None:
        assert functions("@registered\nclass A: ...", "file:A") is None
        assert functions("class A(metaclass=M): ...", "file:A") is None
        assert functions("@dataclass\nclass A:\n    def f(self): ...", "file:A") is not None

    def test_packages_are_found_by_their_init(self) -> None:
        assert read_functions({"pack/__init__.py": b"def f(): ..."}, "pack") is not None
        assert read_functions({"pack/a.py": b"def f(): ..."}, "pack.a") == (Function(name="f", parameters=()),)


class TestChanges:
    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("(a)", "(a, b=1)"),
            ("(a)", "(a, *rest, b=1, **more)"),
            ("(a, b=1)", "(a, b=2)"),
            ("(a, /)", "(other, /)"),
            ("(a, /)", "(a)"),
            ("(*, a)", "(*, a=1)"),
            ("(a: int)", "(a: int | None)"),
            ("(a: int)", "(a: Optional[int])"),
            ("(a: int)", "(a)"),
            ("(a: int)", "(a: Any)"),
            ("(a) -> int | None", "(a) -> int"),
            ("()", "(a=1)"),
        ],
    )
    def test_that_break_nobody(self, old: str, new: str) -> None:
        assert changes(old, new) == []

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ("(a)", "(a, b)", "f: b is required now"),
            ("(a=1)", "(a)", "f: a is required now"),
            ("(a, b)", "(b, a)", "f: where a was, b is now"),
            ("(a, b=1)", "(a)", "f: b cannot be given by position any more"),
            ("(a)", "(a, /)", "f: a cannot be given by name any more"),
            ("(a)", "(*, a)", "f: a cannot be given by position any more"),
            ("(*rest)", "()", "f: it takes no further arguments by position any more"),
            ("(**more)", "()", "f: it takes no further arguments by name any more"),
            ("(a: int)", "(a: str)", "f: a is a str instead of a int"),
            ("(a: int | None)", "(a: int)", "f: a is a int instead of a int | None"),
            ("() -> int", "() -> str", "f gives str instead of int"),
            ("() -> int", "() -> Iterator[int]", "f gives a stream now"),
        ],
    )
    def test_that_break_somebody_are_told(self, old: str, new: str, said: str) -> None:
        assert said in changes(old, new)

    def test_a_function_that_is_gone(self) -> None:
        assert breaking_changes(functions("def a(): ...\ndef b(): ..."), functions("def b(): ...")) == ["a is gone"]

    def test_many_are_summed_up(self) -> None:
        assert summary([f"f{number} is gone" for number in range(12)]).endswith("f9 is gone and 2 more")


class TestState:
    @pytest.mark.parametrize(
        ("old", "new", "told"),
        [
            (None, None, []),
            (None, StateSpec(), []),
            (StateSpec(), StateSpec(durable=True), []),
            (StateSpec(schema_version=1), StateSpec(schema_version=2, reads=(1,)), []),
            (StateSpec(schema_version=1), StateSpec(schema_version=2), ["it cannot read state of schema 1"]),
            (
                StateSpec(schema_version=3),
                StateSpec(schema_version=2, reads=(1,)),
                ["it cannot read state of schema 3"],
            ),
            (StateSpec(schema_version=2), None, ["it gives up state of schema 2"]),
        ],
    )
    def test_must_be_read_on(self, old: StateSpec | None, new: StateSpec | None, told: list[str]) -> None:
        assert state_changes(old, new) == told


class TestInterfaces:
    @pytest.mark.parametrize(
        ("new", "told"),
        [
            ({"embedder": "1.2"}, []),
            ({"embedder": "1.3", "other": "1"}, []),
            ({"embedder": "2.0"}, ["it provides embedder 2.0 instead of 1.2"]),
            ({"embedder": "1.1"}, ["it provides embedder 1.1 instead of 1.2"]),
            ({}, ["it does not provide embedder any more"]),
        ],
    )
    def test_that_others_may_need(self, new: dict[str, str], told: list[str]) -> None:
        assert interface_changes({"embedder": "1.2"}, new) == told

    def test_those_that_nobody_had_break_nobody(self) -> None:
        assert interface_changes({}, {"embedder": "1"}) == []


NAMES = "abc"


@st.composite
def signatures(draw: st.DrawFn) -> str:
    """Any signature with up to three parameters."""
    names = draw(st.permutations(NAMES))[: draw(st.integers(0, 3))]
    kinds = sorted(draw(st.sampled_from("pek")) for _ in names)
    kinds.sort(key="pek".index)
    rest, more = draw(st.booleans()), draw(st.booleans())
    parts, has_default = [], False
    for name, kind in zip(names, kinds, strict=True):
        default = draw(st.booleans()) or (has_default and kind != "k")
        has_default = has_default or (default and kind != "k")
        parts.append((kind, f"{name}=0" if default else name))
    texts = [text for kind, text in parts if kind == "p"]
    texts += ["/"] if texts else []
    texts += [text for kind, text in parts if kind == "e"]
    by_name = [text for kind, text in parts if kind == "k"]
    texts += ["*rest"] if rest else ["*"] if by_name else []
    return f"({', '.join([*texts, *by_name, *(['**more'] if more else [])])})"


CALLS = [(args, names) for args in range(5) for size in range(4) for names in combinations((*NAMES, "other"), size)]


def takes(signature: str, args: int, names: tuple[str, ...]) -> bool:
    made: dict[str, Any] = {}
    exec(f"def f{signature}: ...", made)
    try:
        made["f"](*range(args), **dict.fromkeys(names))
    except TypeError:
        return False
    return True


@settings(max_examples=1000, deadline=None)
@given(signatures(), signatures())
def test_without_a_breaking_change_every_call_still_fits(old: str, new: str) -> None:
    if changes(old, new):
        return
    for args, names in CALLS:
        assert not takes(old, args, names) or takes(new, args, names), f"{args} by position, {names} by name"


@settings(max_examples=300, deadline=None)
@given(signatures())
def test_a_signature_is_compatible_with_itself(signature: str) -> None:
    assert changes(signature, signature) == []
