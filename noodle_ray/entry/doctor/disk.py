"""Whether folders can be written to, and have bytes and inodes left."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from noodle_ray.entry.doctor.finding import Finding, fail, ok, warn
from noodle_ray.resources import format_bytes

LEAST_BYTES, GOOD_BYTES = 256 * 2**20, 2 * 2**30
LEAST_INODES, GOOD_INODES = 1_000, 20_000
FULL = 0.95
"""Ray keeps no more objects on a disk that is fuller than this."""


@dataclass(frozen=True, slots=True)
class Space:
    """What a file system has left for this user. `inodes` is None where it does not count them."""

    free_bytes: int
    total_bytes: int
    inodes: int | None


def check_disk(name: str, path: Path) -> Finding:
    """The folder, or where it is not there yet the nearest one above it that is."""
    place = next(folder for folder in (path, *path.parents) if folder.exists())
    if not place.is_dir():
        return fail(name, f"{place} is no folder", "move it away, or name another folder")
    if not os.access(place, os.W_OK | os.X_OK):
        return fail(name, f"{place} cannot be written to", "give this user the right to, or name another folder")
    return judge_space(name, path, space_at(place))


def space_at(path: Path) -> Space:
    found = os.statvfs(path)
    inodes = found.f_favail if found.f_files else None
    return Space(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, inodes)


def judge_space(name: str, path: Path, space: Space) -> Finding:
    inodes = "" if space.inodes is None else f", {space.inodes:,} inodes"
    found = f"{path}: {format_bytes(space.free_bytes)} of {format_bytes(space.total_bytes)}{inodes} free"
    few = space.inodes is not None and space.inodes < GOOD_INODES
    if space.free_bytes < LEAST_BYTES or (space.inodes is not None and space.inodes < LEAST_INODES):
        return fail(name, found, "make room: nothing can be kept there soon")
    if space.free_bytes < GOOD_BYTES or few:
        return warn(name, found, "make room: logs, modules and spilled objects will fill it")
    if space.free_bytes < (1 - FULL) * space.total_bytes:
        return warn(name, found, f"make room: Ray spills no objects to a disk that is more than {FULL:.0%} full")
    return ok(name, found)
