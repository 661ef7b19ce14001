"""The limits of a deployment: read from variables, below the ceilings, and checked before anything is decoded."""

from __future__ import annotations

import numpy as np
import pytest
from fusion_media import picture, sound

from noodle_ray.errors import InvalidInput, InvalidSettings, NotFound, TooLarge
from noodle_ray.fusion import limits as ceilings
from noodle_ray.fusion.decoding import check, decode, decode_audio, decode_image
from noodle_ray.fusion.limits import DEFAULT, Limits
from noodle_ray.settings import read_settings

FEW = Limits(text_characters=5, code_characters=6, image_bytes=7, audio_bytes=8, items=2, candidates=3)
GIVEN = {
    "NOODLE_FUSION_MAX_TEXT_CHARACTERS": "1",
    "NOODLE_FUSION_MAX_CODE_CHARACTERS": "2",
    "NOODLE_FUSION_MAX_IMAGE_BYTES": "3",
    "NOODLE_FUSION_MAX_IMAGE_PIXELS": "4",
    "NOODLE_FUSION_MAX_AUDIO_BYTES": "5",
    "NOODLE_FUSION_MAX_AUDIO_SECONDS": "6.5",
    "NOODLE_FUSION_MAX_CANDIDATES": "7",
    "NOODLE_FUSION_MAX_ITEMS": "8",
    "NOODLE_FUSION_MAX_DECODING_TIME": "9",
    "NOODLE_FUSION_MAX_DECODING_BYTES": "99999999",
}


def test_without_variables_they_are_the_defaults() -> None:
    assert read_settings({}).fusion_limits == Limits() == DEFAULT


def test_each_limit_has_its_variable() -> None:
    settings = read_settings(GIVEN)
    assert list(settings.fusion_limits.to_json().values()) == [1, 2, 3, 4, 5, 6.5, 7, 8, 9, 99_999_999]
    assert read_settings(settings.environment()) == settings


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(InvalidSettings) as caught:
        read_settings({**dict.fromkeys(GIVEN, "0"), "NOODLE_FUSION_MAX_SMELLS": "1"})
    assert {fault.field for fault in caught.value.faults} == {*GIVEN, "NOODLE_FUSION_MAX_SMELLS"}


def test_no_limit_is_above_its_ceiling() -> None:
    for name, ceiling in [("image_bytes", ceilings.IMAGE_BYTES), ("audio_seconds", ceilings.AUDIO_SECONDS)]:
        Limits.parse({name: ceiling})
        with pytest.raises(InvalidInput, match=name):
            Limits.parse({name: ceiling * 2})


@pytest.mark.parametrize(
    ("modality", "content", "message"),
    [
        ("text", "x" * 6, "text is too large: 6 characters, allowed are 5"),
        ("code", "x" * 7, "code is too large: 7 characters, allowed are 6"),
        ("vision", b"x" * 8, "image is too large: 8 bytes, allowed are 7"),
        ("audio", b"x" * 9, "audio is too large: 9 bytes, allowed are 8"),
    ],
)
def test_sizes_are_checked_of_items_and_candidates(modality: str, content: str | bytes, message: str) -> None:
    for refused in (
        lambda: check([(modality, content)], FEW),
        lambda: check([], FEW, [(modality, content)]),
        lambda: decode(modality, content, FEW),
    ):
        with pytest.raises(TooLarge, match=message):
            refused()
    check([(modality, content[:-1])], FEW, [(modality, content[:-1])])


def test_items_and_candidates_are_counted() -> None:
    items = [("text", "a"), ("vision", b"b"), ("text", "c"), ("vision", b"d")]
    check(items, FEW, [("text", "x")] * 3)
    with pytest.raises(TooLarge, match="image is too large: 3 items, allowed are 2"):
        check([*items, ("vision", b"e")], FEW)
    with pytest.raises(TooLarge, match="candidates is too large: 4 candidates, allowed are 3"):
        check(items, FEW, [("text", "x")] * 4)


def test_an_unknown_modality_is_told_the_known_ones() -> None:
    for refused in (lambda: check([("smell", "rose")], FEW), lambda: decode("smell", "rose", FEW)):
        with pytest.raises(NotFound, match="known: text, audio, vision, code"):
            refused()


@pytest.mark.parametrize("modality", ["vision", "audio"])
def test_media_come_as_bytes(modality: str) -> None:
    with pytest.raises(InvalidInput, match="must be a file's bytes"):
        decode(modality, "aaaa", FEW)


def test_pixels_and_seconds_follow_the_limits() -> None:
    with pytest.raises(TooLarge, match="image is too large: 100 pixels, allowed are 99"):
        decode_image(picture((10, 10)), Limits(image_pixels=99))
    assert decode_image(picture((9, 11)), Limits(image_pixels=99)).shape == (11, 9, 3)
    second = sound(np.zeros(16_000, np.float32))
    with pytest.raises(TooLarge, match="audio is too large: 1000 ms, allowed are 500"):
        decode_audio(second, Limits(audio_seconds=0.5))
    assert len(decode_audio(second, Limits(audio_seconds=1.0))) == 16_000
