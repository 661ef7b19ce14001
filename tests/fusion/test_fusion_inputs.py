"""What a request may carry, and how what it may not is refused."""

from __future__ import annotations

import base64
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.errors import InvalidInput, TooLarge
from noodle_ray.fusion import limits
from noodle_ray.fusion.inputs import MultimodalInput


@given(st.binary(min_size=1, max_size=300))
def test_media_survive_json(data: bytes) -> None:
    request = MultimodalInput(image=data, audio=data)
    assert MultimodalInput.parse(request.to_json()) == request
    assert isinstance(request.to_json()["image"], str)


def test_base64_is_taken_in_either_alphabet() -> None:
    data = bytes(range(250, 256)) * 3
    for text in (base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode()):
        assert MultimodalInput.parse({"audio": text}).audio == data


def test_given_lists_modalities_in_the_fixed_order() -> None:
    request = MultimodalInput(code="x", image=b"i", audio=b"a", text="t")
    assert [modality for modality, _ in request.given()] == ["text", "audio", "vision", "code"]


def test_requests_cross_processes() -> None:
    request = MultimodalInput(text="hello", candidates=["a", "b"], deadline_ms=50)
    assert pickle.loads(pickle.dumps(request)) == request


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "input"),
        ({"text": None, "candidates": ["a"]}, "input"),
        ({"text": ""}, "text"),
        ({"text": " \n"}, "text"),
        ({"text": "a\0b"}, "text"),
        ({"text": "\ud800"}, "text"),
        ({"code": "\udfff = 1"}, "code"),
        ({"text": 3}, "text"),
        ({"image": ""}, "image"),
        ({"image": "§§§"}, "image"),
        ({"image": "abc"}, "image"),
        ({"audio": [1, 2]}, "audio"),
        ({"text": "a", "candidates": ["a", "a"]}, "input"),
        ({"text": "a", "candidates": ["a", ""]}, "candidates.1"),
        ({"text": "a", "candidates": ["x" * 501]}, "candidates.0"),
        ({"text": "a", "candidates": [str(n) for n in range(limits.CANDIDATES + 1)]}, "candidates"),
        ({"text": "a", "candidates": "abc"}, "candidates"),
        ({"text": "a", "deadline_ms": 0}, "deadline_ms"),
        ({"text": "a", "colour": "red"}, "colour"),
    ],
)
def test_wrong_fields_are_named(fields: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        MultimodalInput.parse(fields)
    assert [fault.field for fault in caught.value.faults] == [field]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"text": "x" * (limits.TEXT_CHARACTERS + 1)}, "text"),
        ({"code": "x" * (limits.CODE_CHARACTERS + 1)}, "code"),
        ({"image": b"x" * (limits.IMAGE_BYTES + 1)}, "image"),
        ({"audio": "A" * (limits.AUDIO_BYTES // 3 * 4 + 8)}, "audio"),
    ],
)
def test_what_is_too_large_is_named_with_its_limit(fields: dict[str, object], field: str) -> None:
    with pytest.raises(TooLarge) as caught:
        MultimodalInput.parse(fields)
    assert caught.value.field == field
    assert caught.value.size > caught.value.limit


def test_the_schema_tells_clients_about_base64() -> None:
    schema = MultimodalInput.model_json_schema()
    assert "contentEncoding" in str(schema["properties"]["image"])
