"""Packages in plain dictionaries: {name: {version: {dependency: constraint}}}, as test cases and other tools have them.

A version is numbers with dots between; a constraint is "*", or comparisons (>= <= > < == !=) with commas between.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from noodle_ray.errors import InvalidInput

Packages = Mapping[str, Mapping[str, Mapping[str, str]]]
Number = tuple[int, ...]
SHOWN_VERSIONS = 10

_VERSION = re.compile(r"\d+(\.\d+)*", re.ASCII)
_COMPARISON = re.compile(r"(>=|<=|==|!=|>|<)\s*(\d+(?:\.\d+)*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Column:
    """One package's versions: as written, newest first; as numbers, oldest first."""

    versions: tuple[str, ...]
    numbers: tuple[Number, ...]


class Table:
    """A source of packages that reads only what is asked for, and each thing once."""

    def __init__(self, packages: Packages) -> None:
        self._packages = packages
        self._columns: dict[str, _Column] = {}
        self._allowed: dict[tuple[str, str], int] = {}

    def owner(self, package: str) -> str:
        return package

    def versions(self, package: str) -> Sequence[str]:
        return self._column(package).versions

    def order(self, package: str) -> Sequence[int]:
        return range(len(self.versions(package)))

    def requires(self, package: str, place: int) -> Mapping[str, str]:
        return self._packages[package][self.versions(package)[place]]

    def allowed(self, package: str, constraint: str) -> int:
        key = package, constraint
        if key not in self._allowed:
            self._allowed[key] = _satisfying(self._column(package).numbers, constraint)
        return self._allowed[key]

    def there_is(self, package: str) -> str:
        return there_is_only(package, self.versions(package))

    def _column(self, package: str) -> _Column:
        if package not in self._columns:
            ordered = sorted((_number(text), text) for text in self._packages.get(package, ()))
            newest_first = tuple(text for _, text in reversed(ordered))
            self._columns[package] = _Column(newest_first, tuple(number for number, _ in ordered))
        return self._columns[package]


def there_is_only(package: str, versions: Sequence[str]) -> str:
    """What there is, in words; `versions` are the newest first."""
    if not versions:
        return f"there is no {package}"
    more = " and older ones" if len(versions) > SHOWN_VERSIONS else ""
    return f"there is only {', '.join(versions[:SHOWN_VERSIONS])}{more}"


def _number(text: str) -> Number:
    if not _VERSION.fullmatch(text):
        raise InvalidInput.of("packages", "a version must be numbers with dots between", text)
    numbers = [int(part) for part in text.split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _satisfying(numbers: Sequence[Number], constraint: str) -> int:
    count = len(numbers)
    everything = (1 << count) - 1
    if constraint.strip() in ("*", ""):
        return everything
    allowed = everything
    for part in constraint.split(","):
        found = _COMPARISON.fullmatch(part.strip())
        if found is None:
            raise InvalidInput.of("packages", "a constraint must be *, or comparisons with commas between", constraint)
        allowed &= _compared(numbers, found[1], _number(found[2]))
    return allowed


def _compared(numbers: Sequence[Number], operator: str, bound: Number) -> int:
    """The set of versions for which the comparison holds; place 0 is the newest, the last one of `numbers`."""
    count = len(numbers)
    newer = (1 << (count - bisect_right(numbers, bound))) - 1
    newer_or_equal = (1 << (count - bisect_left(numbers, bound))) - 1
    everything = (1 << count) - 1
    match operator:
        case ">":
            return newer
        case ">=":
            return newer_or_equal
        case "<":
            return everything & ~newer_or_equal
        case "<=":
            return everything & ~newer
        case "==":
            return newer_or_equal & ~newer
        case _:
            return everything & ~(newer_or_equal & ~newer)
