"""Processors: the base pack's encoders as they are called, in batches that change no reading."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from noodle_ray.errors import DeadlineExceeded
from noodle_ray.fusion.ports import Placed
from noodle_ray.fusion_models.packs import Pack
from noodle_ray.fusion_models.processors import PROCESSORS, EncoderConfig, Processor, TextModalityProcessor

PICTURES = [np.full((240, 320, 3), shade, np.uint8) for shade in (0, 90, 250)]
ITEMS: dict[str, list[Any]] = {
    "text": ["a cat", "waiting for the next meeting to begin", "x"],
    "code": ["def wait(self): ...", "for row in rows: print(row)", "x = 1"],
    "vision": PICTURES,
    "audio": [np.zeros(8000, np.float32), np.sin(np.arange(16000) / 5).astype(np.float32)],
}


@pytest.fixture(scope="module")
def processor(base: Pack) -> Callable[[str], Processor]:
    made: dict[str, Processor] = {}

    def of(modality: str) -> Processor:
        if modality not in made:
            config = EncoderConfig(modality, "base", base.version(modality), "auto", "cpu")
            made[modality] = PROCESSORS[modality](config)
        return made[modality]

    return of


@pytest.mark.parametrize("modality", ITEMS)
async def test_what_is_read_together_is_read_as_alone(processor: Callable[[str], Processor], modality: str) -> None:
    one = processor(modality)
    alone = [await one.read((item,), (), 60.0) for item in ITEMS[modality]]
    together = await asyncio.gather(*(one.read((item,), (), 60.0) for item in ITEMS[modality]))
    for first, second in zip(alone, together, strict=True):
        assert isinstance(first, tuple)
        assert isinstance(second, tuple)
        assert first[0].seen == second[0].seen
        assert first[0].space
        assert second[0].embedding == pytest.approx(first[0].embedding, abs=1e-4)


async def test_one_items_fault_is_no_others(processor: Callable[[str], Processor]) -> None:
    vision = processor("vision")
    first = asyncio.ensure_future(vision.read((PICTURES[0],), (), 60.0))
    await asyncio.sleep(0)
    broken = asyncio.ensure_future(vision.read((np.zeros((2, 2), np.uint8),), (), 60.0))
    fine = asyncio.ensure_future(vision.read((PICTURES[1],), (), 60.0))
    assert isinstance(await first, tuple)
    (error,) = await asyncio.gather(broken, return_exceptions=True)
    assert isinstance(error, Exception)
    assert isinstance(await fine, tuple)


async def test_errors_of_ours_are_answers(processor: Callable[[str], Processor]) -> None:
    text = processor("text")
    assert isinstance(text, TextModalityProcessor)
    busy = asyncio.ensure_future(text.read(("a",) * 64, (), 60.0))
    await asyncio.sleep(0)
    assert isinstance(await text.read(("b",), (), -1.0), DeadlineExceeded)
    assert isinstance(await text.place(("b",), -1.0), DeadlineExceeded)
    await busy


async def test_texts_are_placed_in_their_order(processor: Callable[[str], Processor]) -> None:
    text = processor("text")
    assert isinstance(text, TextModalityProcessor)
    placed = await asyncio.gather(text.place(("a", "b"), 60.0), text.place(("c",), 60.0))
    assert all(isinstance(one, Placed) for one in placed)
    assert [len(one.rows) for one in placed if isinstance(one, Placed)] == [2, 1]
    assert text.is_well()


async def test_speech_depends_on_the_candidates_texts(processor: Callable[[str], Processor]) -> None:
    read = await processor("audio").read((ITEMS["audio"][1],), ("a hum", "a cat"), 60.0)
    assert isinstance(read, tuple)
    assert read[0].needs_texts
    assert not (await processor("text").read(("a",), ("b",), 60.0))[0].needs_texts  # type: ignore[index]
