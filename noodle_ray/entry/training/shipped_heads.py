"""The heads that come with noodle-ray, and what rebuilds each: a new one is a line here."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from noodle_ray.errors import NotFound, Unavailable

Progress = Callable[[str], None]
Rebuild = Callable[[Path, Progress], object]
"""Trains from the data in the cache directory, and writes the head's files into `shipped_directory()`."""


def _vision_names(cache_dir: Path, progress: Progress) -> None:
    from noodle_ray.entry.training.vision_names import rebuild  # torch takes seconds to load

    rebuild(cache_dir, progress)


def _code_map(cache_dir: Path, progress: Progress) -> None:
    from noodle_ray.entry.training.code_map_training import train

    train(cache_dir, progress)


SHIPPED: dict[str, Rebuild] = {"code_map": _code_map, "vision_names": _vision_names}
MAX_BYTES = 5_000_000
"""All of them together."""


def shipped_directory() -> Path:
    """`fusion_models/heads/`, wherever the package is."""
    spec = find_spec("noodle_ray.fusion_models")
    if spec is None or spec.origin is None:
        raise Unavailable("noodle_ray.fusion_models is not installed")
    return Path(spec.origin).parent / "heads"


def rebuild(name: str, cache_dir: Path, progress: Progress) -> None:
    """Raises NotFound for a head that is not shipped."""
    if name not in SHIPPED:
        raise NotFound("shipped head", name, sorted(SHIPPED))
    SHIPPED[name](cache_dir, progress)
