"""Encoders and a module registry for tests of what is kept: they run in no time, and can be told to misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from noodle_ray.fusion.catalogue import Listed, Listing
from noodle_ray.fusion.items import Item
from noodle_ray.fusion.ports import Placed
from noodle_ray.fusion.reading import Reading

EAST, NORTH = np.array([1, 0], np.float32), np.array([0, 1], np.float32)


class Compass:
    """Encoders that know two directions: what speaks of the north, and everything else."""

    def __init__(self) -> None:
        self.space, self.read_items = "a", 0
        self.error: Exception | None = None

    async def versions(self, modalities: Sequence[str]) -> dict[str, str]:
        return dict.fromkeys(modalities, f"1-{self.space}")

    async def read(
        self, modality: str, version: str, items: Sequence[Any], texts: tuple[str, ...], within_s: float
    ) -> Sequence[Reading]:
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.read_items += len(items)
        return [Reading("c", str(item)[:80], 1.0, self.place_of(str(item)), space=self.space) for item in items]

    async def place(self, version: str, texts: tuple[str, ...], within_s: float) -> Placed:
        return Placed(self.space, np.stack([self.place_of(text) for text in texts]))

    def place_of(self, text: str) -> Any:
        return NORTH if "north" in text else EAST


class PlainDecoder:
    async def decode(self, modality: str, item: Item) -> Any:
        return item


class Registry:
    """A catalogue that grows."""

    def __init__(self) -> None:
        self.modules = {
            "compass": Listed("compass", "1.0", "tells where north is"),
            "sun": Listed("sun", "1.0", "east"),
        }
        self.revision = 1

    async def listed(self, known: int) -> Listing | None:
        return None if known == self.revision else Listing(self.revision, tuple(self.modules.values()))

    async def code(self, name: str, version: str) -> str:
        return f"def {name}(): ..."

    def publish(self, module: Listed) -> None:
        self.modules[module.name] = module
        self.revision += 1

    def yank(self, name: str) -> None:
        del self.modules[name]
        self.revision += 1
