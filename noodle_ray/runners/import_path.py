"""The import path of a program: its folders, and the names in them that must not be anybody else's."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from noodle_ray.errors import InvalidInput
from noodle_ray.runners.runner import Program

VENDOR = "vendor"
_NOT_FOR_OTHERS = ("tests", "conftest", "setup")
"""Names at the top of many a module that nobody imports from elsewhere: two modules may both have them."""


def top_level_names(folder: Path) -> set[str]:
    """The packages and files of an unpacked module that others can import."""
    packages = {path.parent.name for path in folder.glob("*/__init__.py")}
    files = {path.stem for path in folder.glob("*.py")}
    return {name for name in packages | files if name.isidentifier() and name not in _NOT_FOR_OTHERS}


def require_own_names(folders: Sequence[Path]) -> None:
    """A package that could be another's would be imported from the wrong place, or break what runs here.

    Raises InvalidInput.
    """
    owners: dict[str, Path] = {}
    for folder in folders:
        for name in sorted(top_level_names(folder)):
            if name in owners:
                raise InvalidInput.of("module", f"two modules of the lock have a package {name!r}")
            if name in sys.modules or importlib.util.find_spec(name) is not None:
                raise InvalidInput.of("module", f"its package {name!r} has the name of one that is installed here")
            owners[name] = folder


def import_path(program: Program) -> list[str]:
    """What goes before everything else: the folders, the module's own first, and then what they have of others.

    What this process has imported already stays as it is, whatever a vendor folder holds.
    """
    folders = list(reversed(program.folders))
    vendored = [folder / VENDOR for folder in folders if program.vendor and (folder / VENDOR).is_dir()]
    return [str(folder) for folder in (*folders, *vendored)]
