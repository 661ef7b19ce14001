"""Pairs of docstring and code to train on: functions of pinned packages, none of them in the function finder's set."""

from __future__ import annotations

import re
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from noodle_ray.entry.training.datasets import MODULES, Function, functions_in, python_functions

_PACKAGES = """
    aiohttp anyio click fastapi fontTools fsspec httpx huggingface_hub jinja2 matplotlib networkx numba numpy packaging
    prometheus_client psutil pydantic pygments pyparsing ray requests rich scipy sqlalchemy structlog sympy torch
    transformers typer
"""
PACKAGES = tuple(_PACKAGES.split())
"""Import names of what noodle-ray itself needs, so that constraints.txt pins every version (licences: MIT, BSD, PSF,
Apache-2.0)."""
SEED = 11
MOST_OF_ONE_PACKAGE = 1200
STANDARD_LIBRARY = "python"


@dataclass(frozen=True, slots=True)
class Pair:
    """A docstring's first paragraph, and the code it belongs to with the function's own name masked."""

    package: str
    summary: str
    code: str


def masked(function: Function) -> str:
    """The function's code without its name: "f" stands for it wherever it occurs."""
    return re.sub(rf"\b{re.escape(function.name)}\b", "f", function.code)


def training_pairs() -> tuple[Pair, ...]:
    """In an order fixed by SEED: the standard library outside of `datasets.MODULES`, and PACKAGES where installed.

    What has the code or the docstring of a function of the function finder's set is left out, and so are repetitions.
    """
    theirs = python_functions()
    seen = {masked(function) for function in theirs} | {function.summary for function in theirs}
    chosen = []
    for package in (STANDARD_LIBRARY, *PACKAGES):
        fresh = []
        for pair in _pairs(package):
            if pair.code not in seen and pair.summary not in seen:
                seen |= {pair.code, pair.summary}
                fresh.append(pair)
        Random(SEED).shuffle(fresh)  # noqa: S311 (no secret)
        chosen += fresh if package == STANDARD_LIBRARY else fresh[:MOST_OF_ONE_PACKAGE]
    Random(SEED).shuffle(chosen)  # noqa: S311 (no secret)
    return tuple(chosen)


def _pairs(package: str) -> Iterator[Pair]:
    for path in _files(package):
        try:
            source = path.read_text(encoding="utf-8")
            with warnings.catch_warnings(action="ignore"):  # old escapes in other people's strings
                for function in functions_in(path.stem, source):
                    yield Pair(package, function.summary, masked(function))
        except (SyntaxError, UnicodeDecodeError):  # templates, and files that are broken on purpose
            continue


def _files(package: str) -> list[Path]:
    if package == STANDARD_LIBRARY:
        folder = Path(sysconfig.get_path("stdlib"))
        kept = [path for path in folder.rglob("*.py") if not _is_aside(path.relative_to(folder))]
    else:
        folder = Path(sysconfig.get_path("purelib")) / package
        kept = [path for path in folder.rglob("*.py") if not {"test", "tests"} & set(path.parts)]
    return sorted(kept)


def _is_aside(path: Path) -> bool:
    """Whether a file belongs to the function finder's modules, to tests or to installed packages."""
    is_theirs = len(path.parts) == 1 and path.stem in MODULES
    return is_theirs or bool({"test", "tests", "site-packages", "dist-packages"} & set(path.parts))
