"""Damaged and random content over all four decoders: they answer, or refuse with a typed error that names the field."""

from __future__ import annotations

import asyncio
import random
import warnings
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mutations import FORMATS, PICTURES, SOUNDS, damaged, real_file

from noodle_ray.errors import InvalidInput, TooLarge
from noodle_ray.fusion.decoder_pool import DecoderPool
from noodle_ray.fusion.decoding import LONG_SIDE, decode
from noodle_ray.fusion.limits import Limits
from noodle_ray.fusion.modality import FIELD_OF

LIMITS = Limits(image_pixels=1_000_000, text_characters=300, code_characters=300)
FILES = {modality: tuple(map(real_file, names)) for modality, names in FORMATS.items()}
EVERY_FILE = (*FILES["vision"], *FILES["audio"])
INPUTS = 1_000


def is_sound(modality: str, result: object) -> bool:
    """Whether the result is what the decoder promises."""
    if modality in ("text", "code"):
        return isinstance(result, str) and 0 < len(result) <= 300 and bool(result.encode())
    assert isinstance(result, np.ndarray)
    if modality == "vision":
        return result.dtype == np.uint8 and result.shape[2] == 3 and max(result.shape) <= LONG_SIDE
    return result.dtype == np.float32 and bool((np.abs(result) <= 1).all()) and len(result) <= 30 * 16_000


def decode_or_refuse(modality: str, content: str | bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as a service does; Pillow warns of much that it can read
        try:
            assert is_sound(modality, decode(modality, content, LIMITS))
        except (InvalidInput, TooLarge) as error:
            assert str(error).startswith((f"invalid input: {FIELD_OF[modality]}: ", f"{FIELD_OF[modality]} is too"))


@pytest.mark.parametrize("name", [*PICTURES, *SOUNDS])
def test_the_files_themselves_are_good(name: str) -> None:
    modality = "audio" if name in SOUNDS else "vision"
    assert is_sound(modality, decode(modality, real_file(name), LIMITS))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32))
@pytest.mark.parametrize("name", [*PICTURES, *SOUNDS])
def test_damaged_files(name: str, seed: int) -> None:
    chance = random.Random(seed)
    decode_or_refuse("audio" if name in SOUNDS else "vision", damaged(real_file(name), chance, EVERY_FILE))


@settings(deadline=None)
@given(st.sampled_from(["vision", "audio"]), st.binary(max_size=300) | st.sampled_from(EVERY_FILE))
def test_random_bytes_and_files_of_the_other_kind(modality: str, data: bytes) -> None:
    decode_or_refuse(modality, data)


ANY_TEXT = st.text(st.characters() | st.characters(categories=["Cs", "Cc", "Co", "Cn"]), max_size=320)


@settings(deadline=None, max_examples=300)
@example("code", "\ufeff\ufeff")
@example("text", b"\xff\xfe\x00\xd8")
@given(st.sampled_from(["text", "code"]), ANY_TEXT | st.binary(max_size=1300))
def test_any_characters_and_bytes_as_text_and_code(modality: str, content: str | bytes) -> None:
    decode_or_refuse(modality, content)


def peak_bytes(process_id: int) -> int:
    """The most memory that the process ever had."""
    lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


async def test_a_pool_survives_a_thousand_damaged_files_in_bounded_memory() -> None:
    chance = random.Random(20_260)
    limits = Limits(decoding_bytes=128 * 2**20)
    async with DecoderPool(limits) as pool:
        before_bytes = psutil.Process().memory_info().rss
        resting_bytes = max(map(peak_bytes, pool.process_ids))
        outcomes: dict[str, int] = {}

        async def one(modality: str, data: bytes) -> None:
            try:
                assert is_sound(modality, await pool.decode(modality, data))
                kind = "decoded"
            except (InvalidInput, TooLarge) as error:
                assert FIELD_OF[modality] in str(error)
                kind = type(error).__name__
            outcomes[kind] = outcomes.get(kind, 0) + 1

        for _ in range(INPUTS // 20):
            modalities = [chance.choice(("vision", "audio")) for _ in range(20)]
            batch = [(each, damaged(chance.choice(FILES[each]), chance, EVERY_FILE)) for each in modalities]
            await asyncio.gather(*(one(*each) for each in batch))
        assert sum(outcomes.values()) == INPUTS
        assert set(outcomes) == {"decoded", "InvalidInput", "TooLarge"}
        assert max(map(peak_bytes, pool.process_ids)) <= resting_bytes + limits.decoding_bytes
        assert psutil.Process().memory_info().rss - before_bytes < 64 * 2**20
        for modality, files in FILES.items():
            for file in files:
                assert is_sound(modality, await pool.decode(modality, file))
        print(outcomes)
