"""Whether Python and the installed packages are those that noodle-ray asks for."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from noodle_ray.entry.doctor.finding import Finding, fail, ok

PACKAGE = "noodle-ray"
SHOWN = ("ray", "torch", "transformers", "pydantic", "numpy", "sqlalchemy")
INSTALL = "`make setup` in the checkout, or `pip install --constraint constraints.txt --editable .`"

Version = Callable[[str], str]
"""A package's installed version. Raises metadata.PackageNotFoundError."""


def check_python(wanted: str, version: str = platform.python_version()) -> Finding:
    """`wanted` is a specifier, as in Requires-Python."""
    if version in SpecifierSet(wanted):
        return ok("python", f"{version}, wanted is {wanted}")
    return fail("python", f"{version}, wanted is {wanted}", f"set up an environment with Python {wanted}")


def check_packages(requirements: Sequence[str], version: Version = metadata.version) -> Finding:
    """Each requirement against what is installed; those of extras are not looked at."""
    wanted = [Requirement(line) for line in requirements]
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    if problems := [problem for one in wanted if (problem := _problem(one, version))]:
        return fail("packages", "; ".join(problems), INSTALL)
    shown = [f"{one.name} {version(one.name)}" for one in wanted if one.name in SHOWN]
    return ok("packages", f"all {len(wanted)} as required: {', '.join(shown)}")


def _problem(wanted: Requirement, version: Version) -> str:
    try:
        found = version(wanted.name)
    except metadata.PackageNotFoundError:
        return f"{wanted.name} is not installed"
    # A build of its own (2.13.0+cpu) is that version; a pre-release that is installed was chosen on purpose.
    fits = wanted.specifier.contains(found, prereleases=True)
    return "" if fits else f"{wanted.name} {found}, not {wanted.specifier}"


def check_installed() -> list[Finding]:
    """Python and packages as the installed noodle-ray says that it needs them."""
    try:
        described = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        return [fail("packages", f"{PACKAGE} itself is not installed here", INSTALL)]
    python = described.metadata["Requires-Python"]
    return [check_python(python), check_packages(described.requires or [])]
