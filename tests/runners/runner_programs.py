"""Programs for runners: a folder with one file, under a name that no test before has imported."""

from __future__ import annotations

import itertools
from pathlib import Path

from noodle_ray.runners.runner import Program

_numbers = itertools.count(1)


def program(
    folder: Path, code: str, entry: str = "", *, health_check: str | None = None, vendor: bool = False
) -> Program:
    """A program whose one file has this code; `entry` names its class, if it has one."""
    file = f"program_{next(_numbers)}"
    home = folder / file
    home.mkdir()
    (home / f"{file}.py").write_text(code)
    return Program("prog", (home,), f"{file}:{entry}" if entry else file, health_check, vendor)
