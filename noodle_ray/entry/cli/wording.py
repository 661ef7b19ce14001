"""Wording: ages, ranges of numbers and of names, and what a node has, as short as a table needs them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from itertools import groupby

from noodle_ray.errors import InvalidInput
from noodle_ray.resources import NodeResources, format_bytes, from_units

_NUMBERED = re.compile(r"(.+)-(\d+)")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h)?")
_SECONDS = {None: 1, "s": 1, "m": 60, "h": 3_600}


def age(seconds: float) -> str:
    """Rounded down to the unit that says most: "42 s", "3 min", "5 h", "2 d"."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


def clock(at: float) -> str:
    """A moment, in seconds since 1970, in this machine's time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def read_seconds(field: str, text: str, at_most: float) -> float:
    """A duration such as "90", "90s", "5m", "1h", in seconds. Raises InvalidInput."""
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else -1.0
    if not 0 <= seconds <= at_most:
        raise InvalidInput.of(field, f"give seconds, or such as 90s, 5m, 1h, up to {at_most:g} seconds", text)
    return seconds


def ranges(numbers: Iterable[int]) -> str:
    """Numbers with those in a row drawn together: "0-3, 7"."""
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in _runs(sorted(set(numbers))))


def _runs(numbers: Sequence[int]) -> list[list[int]]:
    by_offset = groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])
    return [[number for _, number in run] for _, run in by_offset]


def names_in_short(names: Sequence[str]) -> str:
    """Names with numbered ones drawn together: "notebook-1…20, etl-3"."""
    numbers: dict[str, list[int]] = {}
    for name in names:
        match = _NUMBERED.fullmatch(name)
        stem, number = (match[1], int(match[2])) if match else (name, -1)
        numbers.setdefault(stem, []).append(number)
    return ", ".join(_numbered(stem, run) for stem, known in numbers.items() for run in _runs(sorted(known)))


def _numbered(stem: str, run: Sequence[int]) -> str:
    if run[0] < 0:
        return stem
    return f"{stem}-{run[0]}" if len(run) == 1 else f"{stem}-{run[0]}…{run[-1]}"


def what_it_has(node: NodeResources) -> str:
    """For people: "64 CPU, 512GiB, 8 x A100"."""
    parts = [f"{from_units(node.cpu_units):g} CPU", format_bytes(node.memory_bytes)]
    parts += [f"{node.gpus} x {node.accelerator_type or 'GPU'}"] if node.gpus else []
    parts += [f"{from_units(units):g} {name}" for name, units in sorted(node.custom_units.items())]
    return ", ".join(parts)


def count_of(number: int, what: str) -> str:
    """The number with its noun: "1 node", "3 nodes"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
