"""What a request may carry, and how what it may not is refused."""

from __future__ import annotations

import base64
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.errors import InvalidInput, TooLarge
from noodle_ray.fusion import limits
from noodle_ray.fusion.inputs import Candidate, MultimodalInput

blobs = st.binary(min_size=1, max_size=60)
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30).filter(
    str.strip
)
items = {"text": words, "code": words, "image": blobs, "audio": blobs}


def several(item: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.one_of(item, st.lists(item, min_size=1, max_size=limits.ITEMS))


candidates = st.one_of(
    *(st.builds(Candidate, label=st.none() | words, **{field: item}) for field, item in items.items())
)
requests = st.fixed_dictionaries(
    {"text": several(words)},
    optional={
        **{field: several(item) for field, item in items.items() if field != "text"},
        "top": st.integers(1, 1000),
        "session": st.text("abcXYZ-_09", min_size=1, max_size=40),
        "use_context": st.booleans(),
        "deadline_ms": st.integers(1, 1000),
    },
)
asks = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"index": st.just("modules")}),
    st.fixed_dictionaries({"head": st.just("tickets-2.1")}),
    st.lists(candidates, min_size=1, max_size=12).map(lambda chosen: {"candidates": distinct(chosen)}),
)


def distinct(chosen: list[Candidate]) -> tuple[Candidate, ...]:
    """Only the first of each name; what has none is called by its place, so each gets one that lasts."""
    named = [one.model_copy(update={"label": one.name(place)}) for place, one in enumerate(chosen, 1)]
    return tuple({one.label: one for one in named}.values())


@given(requests, asks)
def test_any_request_survives_json_and_pickling(fields: dict[str, object], ask: dict[str, object]) -> None:
    request = MultimodalInput(**fields, **ask)
    assert MultimodalInput.parse(json.loads(json.dumps(request.to_json()))) == request
    assert pickle.loads(pickle.dumps(request)) == request


@given(blobs)
def test_media_survive_json(data: bytes) -> None:
    request = MultimodalInput(image=data, audio=[data, data])
    assert MultimodalInput.parse(request.to_json()) == request
    assert isinstance(request.to_json()["image"], str)
    assert (request.image, request.audio) == ((data,), (data, data))


@given(words)
def test_a_lone_item_may_stand_for_one(text: str) -> None:
    assert MultimodalInput(text=text) == MultimodalInput(text=[text]) == MultimodalInput(text=(text,))
    assert MultimodalInput(text=text).to_json()["text"] == text


def test_candidates_of_every_kind_are_named_and_read() -> None:
    request = MultimodalInput(
        text="which?",
        candidates=(
            "a cat",
            {"label": "dog", "text": "a dog"},
            {"code": "x = 1"},
            {"image": base64.b64encode(b"picture").decode()},
            Candidate(audio=b"sound"),
        ),
    )
    assert request.names() == ("a cat", "dog", "code 3", "image 4", "audio 5")
    assert [one.modality for one in request.candidates] == ["text", "text", "code", "vision", "audio"]
    assert [one.content for one in request.candidates] == ["a cat", "a dog", "x = 1", b"picture", b"sound"]
    assert request.texts() == ()
    assert MultimodalInput(text="which?", candidates=("a", {"text": "b", "label": "c"})).texts() == ("a", "b")


@pytest.mark.parametrize(
    ("fields", "ask"),
    [({}, "embed"), ({"candidates": ["a"]}, "choose"), ({"index": "modules"}, "find"), ({"head": "h"}, "classify")],
)
def test_what_is_asked(fields: dict[str, object], ask: str) -> None:
    assert MultimodalInput(text="a", **fields).ask == ask


def test_base64_is_taken_in_either_alphabet() -> None:
    data = bytes(range(250, 256)) * 3
    for text in (base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode()):
        assert MultimodalInput.parse({"audio": text}).audio == (data,)


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
        ({"text": ["a", ""]}, "text"),
        ({"text": ["a"] * (limits.ITEMS + 1)}, "text"),
        ({"text": []}, "input"),
        ({"text": "a", "candidates": ["a", ""]}, "candidates.1.text"),
        ({"text": "a", "candidates": [{}]}, "candidates.0"),
        ({"text": "a", "candidates": [{"text": "a", "code": "b"}]}, "candidates.0"),
        ({"text": "a", "candidates": [{"text": "a", "label": ""}]}, "candidates.0.label"),
        ({"text": "a", "candidates": [{"image": "§"}]}, "candidates.0.image"),
        ({"text": "a", "candidates": [{"sound": "x"}]}, "candidates.0.sound"),
        ({"text": "a", "candidates": ["a", {"label": "a", "code": "b"}]}, "input"),
        ({"text": "a", "candidates": [{"code": str(n)} for n in range(33)]}, "input"),
        ({"text": "a", "candidates": [str(n) for n in range(limits.CANDIDATES + 1)]}, "candidates"),
        ({"text": "a", "candidates": ["b"], "index": "modules"}, "input"),
        ({"text": "a", "head": "h", "index": "modules"}, "input"),
        ({"text": "a", "index": "No Name"}, "index"),
        ({"text": "a", "head": "../h"}, "head"),
        ({"text": "a", "top": 0}, "top"),
        ({"text": "a", "session": "two words"}, "session"),
        ({"text": "a", "session": ""}, "session"),
        ({"text": "a", "use_context": "perhaps"}, "use_context"),
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
        ({"text": ["a", "x" * (limits.TEXT_CHARACTERS + 1)]}, "text"),
        ({"text": "a", "candidates": ["x" * (limits.CANDIDATE_CHARACTERS + 1)]}, "text"),
        ({"text": "a", "candidates": [{"code": "x" * (limits.CODE_CHARACTERS + 1)}]}, "code"),
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
