"""Compatibility: whether every call of one version's functions is still a call of another's."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence

from noodle_ray.modules.manifest import StateSpec
from noodle_ray.modules.signatures import Function, Parameter
from noodle_ray.modules.versions import compare_versions, parse_version

_LISTED = 10


def breaking_changes(old: Sequence[Function] | None, new: Sequence[Function] | None) -> list[str]:
    """What callers of the old functions would stumble over, in sentences; None is unknown, and breaks nothing."""
    if old is None or new is None:
        return []
    functions = {function.name: function for function in new}
    changes: list[str] = []
    for function in old:
        now = functions.get(function.name)
        if function.certain and now is None:
            changes.append(f"{function.name} is gone")
        elif function.certain and now is not None and now.certain:
            changes += _changes(function, now)
    return changes


def state_changes(old: StateSpec | None, new: StateSpec | None) -> list[str]:
    """What becomes of the state of the old version, where the new one cannot go on from it."""
    if old is None or (new is not None and new.can_read(old.schema_version)):
        return []
    return [f"it {'gives up' if new is None else 'cannot read'} state of schema {old.schema_version}"]


def interface_changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Interfaces (name → version) that are gone, of another major version, or older than before."""
    changes = []
    for name, version in sorted(old.items()):
        if name not in new:
            changes.append(f"it does not provide {name} any more")
        elif parse_version(new[name]).major != parse_version(version).major or compare_versions(new[name], version) < 0:
            changes.append(f"it provides {name} {new[name]} instead of {version}")
    return changes


def summary(changes: Sequence[str]) -> str:
    """The changes in one line."""
    more = f" and {len(changes) - _LISTED} more" if len(changes) > _LISTED else ""
    return "; ".join(changes[:_LISTED]) + more


def _changes(old: Function, new: Function) -> Iterator[str]:
    if old.streams != new.streams:
        yield f"{old.name} {'gives a stream now' if new.streams else 'gives no stream any more'}"
    if not _fits(new.returns, old.returns):
        yield f"{old.name} gives {new.returns} instead of {old.returns}"
    if old.parameters is not None and new.parameters is not None:
        for change in _Parameters(old.parameters, new.parameters).changes():
            yield f"{old.name}: {change}"


class _Parameters:
    """The parameters of two versions of a function: does whatever fits the old ones fit the new ones?"""

    def __init__(self, old: Sequence[Parameter], new: Sequence[Parameter]) -> None:
        self._old, self._new = _Row(old), _Row(new)

    def changes(self) -> Iterator[str]:
        yield from self._lost_places()
        yield from self._lost_names()
        yield from self._newly_required()
        yield from self._taken_twice()
        yield from self._types()

    def _lost_places(self) -> Iterator[str]:
        """Arguments that are given by position."""
        old, new = self._old, self._new
        for place, before in enumerate(old.ordered):
            now = new.at(place)
            if now is None and not new.rest:
                yield f"{before.name} cannot be given by position any more"
            elif before.kind == "either" and now is not None and now.name != before.name:
                yield f"where {before.name} was, {now.name} is now"
        if old.rest and not new.rest:
            yield "it takes no further arguments by position any more"

    def _lost_names(self) -> Iterator[str]:
        """Arguments that are given by name."""
        for name in self._old.named:
            taken_along = self._new.keywords and name not in self._new.all
            if name not in self._new.named and not taken_along:
                yield f"{name} cannot be given by name any more"
        if self._old.keywords and not self._new.keywords:
            yield "it takes no further arguments by name any more"

    def _newly_required(self) -> Iterator[str]:
        for name, now in self._new.all.items():
            if now.required and not self._was_given(name, now):
                yield f"{name} is required now"

    def _was_given(self, name: str, now: Parameter) -> bool:
        """Whether each call of the old function gives it, and in a way that the new one takes it."""
        if now.kind == "keyword":
            before = self._old.all.get(name)
            return before is not None and before.required and before.kind == "keyword"
        place = self._new.ordered.index(now)
        before = self._old.at(place)
        if before is not None and before.required:
            return before.kind == now.kind == "positional" or (now.kind == "either" and self._is_same(before, now))
        before = self._old.all.get(name)
        return before is not None and before.required and before.kind == "keyword" and now.kind == "either"

    @staticmethod
    def _is_same(before: Parameter, now: Parameter) -> bool:
        """At the same place: by position only, whatever its name was; else under the same name."""
        return before.kind == "positional" or before.name == now.name

    def _taken_twice(self) -> Iterator[str]:
        """Names that could be given beside a full row of arguments, and now stand in that row themselves."""
        for place, now in enumerate(self._new.ordered):
            is_filled = self._old.rest or place < len(self._old.ordered)
            before = self._old.all.get(now.name)
            elsewhere = before is None or before.kind != "either" or self._old.ordered.index(before) > place
            by_name = now.name in self._old.named or self._old.keywords
            if now.kind == "either" and is_filled and elsewhere and by_name:
                yield f"{now.name} could be given by name beside what now stands in its place"

    def _types(self) -> Iterator[str]:
        for name, before in self._old.all.items():
            now = self._new.all.get(name)
            if now is not None and not _fits(before.annotation, now.annotation):
                yield f"{name} is a {now.annotation} instead of a {before.annotation}"


class _Row:
    """A function's parameters, by how they are given."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self.ordered = [one for one in parameters if one.kind in ("positional", "either")]
        self.named: Mapping[str, Parameter] = {one.name: one for one in parameters if one.kind in ("either", "keyword")}
        self.all = {one.name: one for one in parameters if one.kind not in ("rest", "keywords")}
        self.rest = any(one.kind == "rest" for one in parameters)
        self.keywords = any(one.kind == "keywords" for one in parameters)

    def at(self, place: int) -> Parameter | None:
        return self.ordered[place] if place < len(self.ordered) else None


def _fits(given: str, wanted: str) -> bool:
    """Whether what is of the one type may be of the other: the same, or a part of a union; unknown types fit."""
    if not given or not wanted or wanted in ("Any", "typing.Any", "object"):
        return True
    return _members(given) <= _members(wanted)


def _members(text: str) -> set[str]:
    """The members of a union, "Optional[X]" and "X | None" alike."""
    try:
        node = ast.parse(text, mode="eval").body
    except SyntaxError:
        return {text}
    return set(_of_union(node))


def _of_union(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        yield from _of_union(node.left)
        yield from _of_union(node.right)
    elif isinstance(node, ast.Subscript) and ast.unparse(node.value).rpartition(".")[2] in ("Optional", "Union"):
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        for part in parts:
            yield from _of_union(part)
        if ast.unparse(node.value).endswith("Optional"):
            yield "None"
    else:
        yield ast.unparse(node)
