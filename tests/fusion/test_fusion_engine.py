"""The engine over encoders that are quick, late, broken or absent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from fusion_media import picture, sound
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.errors import DeadlineExceeded, InvalidInput, TooLarge, Unavailable
from noodle_ray.fusion.calibration import UNFITTED
from noodle_ray.fusion.candidate_cache import CandidateCache, stacked
from noodle_ray.fusion.engine import Engine, Observer
from noodle_ray.fusion.gathering import gather_until
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.fusion.modality import MODALITIES
from noodle_ray.fusion.reading import Matrix, Reading

PLACES = {"left": np.array([1, 0], np.float32), "right": np.array([0, 1], np.float32)}
IMAGE, SOUND = picture(), sound(np.zeros(1600, np.float32))
ALL = MultimodalInput(text="t", code="c", image=IMAGE, audio=SOUND, candidates=("left", "right"))


class FakeEncoder:
    """Reads everything as one place, after a while, or fails."""

    def __init__(self, place: str = "left", error: Exception | None = None, hangs: bool = False, **more: Any) -> None:
        self.place, self.error, self.hangs, self.more = place, error, hangs, more
        self.calls: list[tuple[Any, tuple[str, ...]]] = []
        self.cancelled = False
        self.asked = asyncio.Event()

    async def encode(self, content: Any, candidates: tuple[str, ...]) -> Reading:
        self.calls.append((content, candidates))
        self.asked.set()
        try:
            await asyncio.sleep(60 if self.hangs else 0)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.error:
            raise self.error
        return Reading("fake/1", f"seen {self.place}", 1.0, PLACES[self.place], **self.more)


class FakePlaces:
    def __init__(self, hangs: bool = False, error: Exception | None = None) -> None:
        self.hangs, self.error = hangs, error
        self.asked: list[tuple[str, ...]] = []

    async def embed(self, texts: tuple[str, ...]) -> Matrix:
        self.asked.append(texts)
        await asyncio.sleep(60 if self.hangs else 0)
        if self.error:
            raise self.error
        return np.stack([PLACES[text] for text in texts])


class Notes(Observer):
    def __init__(self) -> None:
        self.noted: list[tuple[str, str]] = []

    def failed(self, request_id: str, stage: str, error: BaseException) -> None:
        self.noted.append((stage, type(error).__name__))

    def late(self, request_id: str, stage: str, limit_ms: float) -> None:
        self.noted.append((stage, "late"))


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


@pytest.fixture
def build(pool: ThreadPoolExecutor) -> Callable[..., Engine]:
    def engine(places: FakePlaces | None = None, limit_ms: float = 5000, **encoders: FakeEncoder) -> Engine:
        everyone = {modality: encoders.get(modality, FakeEncoder()) for modality in MODALITIES}
        observer = encoders.get("observer")
        return Engine(
            everyone,
            places or FakePlaces(),
            UNFITTED,
            limit_ms=limit_ms,
            threshold=0.7,
            pool=pool,
            observer=observer,  # type: ignore[arg-type]
        )

    return engine


async def test_four_modalities_become_one_answer(build: Callable[..., Engine]) -> None:
    result = await build().process(ALL, "r1")
    assert result.request_id == "r1"
    assert result.candidates[0].candidate == "left"
    assert result.confidence == result.candidates[0].probability > 0.7
    assert result.confident
    assert result.modalities_used == MODALITIES
    assert set(result.contributions) == set(result.readings) == set(result.encoders) == set(MODALITIES)
    assert {"decode", "fuse", "total", "candidates", *MODALITIES} == set(result.stage_ms)
    assert result.embedding == (1.0, 0.0)
    assert (result.late, result.failed) == ((), {})
    assert sum(ranked.probability for ranked in result.candidates) == pytest.approx(1.0)


async def test_media_arrive_decoded_and_candidates_with_them(build: Callable[..., Engine]) -> None:
    vision, audio, text = FakeEncoder(), FakeEncoder(), FakeEncoder()
    await build(vision=vision, audio=audio, text=text).process(ALL, "r")
    assert vision.calls[0][0].shape == (30, 40, 3)
    assert audio.calls[0][0].shape == (1600,)
    assert text.calls == [("t", ("left", "right"))]


async def test_without_candidates_there_is_an_embedding_alone(build: Callable[..., Engine]) -> None:
    places = FakePlaces()
    result = await build(places).process(MultimodalInput(text="t", code="c"), "r")
    assert (result.candidates, result.confidence, result.confident) == ((), 0.0, False)
    assert result.embedding == (1.0, 0.0)
    assert result.contributions == pytest.approx({"text": 0.0, "code": 0.0})
    assert places.asked == []


async def test_a_late_encoder_is_left_out_and_cancelled(build: Callable[..., Engine]) -> None:
    stuck, notes = FakeEncoder(hangs=True), Notes()
    result = await build(limit_ms=80, audio=stuck, observer=notes).process(ALL, "r")
    assert result.late == ("audio",)
    assert result.modalities_used == ("text", "vision", "code")
    assert result.candidates[0].candidate == "left"
    await asyncio.sleep(0)
    assert stuck.cancelled
    assert notes.noted == [("audio", "late")]


async def test_a_failing_encoder_is_left_out_with_the_reason(build: Callable[..., Engine]) -> None:
    notes = Notes()
    engine = build(
        code=FakeEncoder(error=Unavailable("no replica")), text=FakeEncoder(error=KeyError("secret")), observer=notes
    )
    result = await engine.process(ALL, "r")
    assert result.failed == {"text": "KeyError", "code": "no replica"}
    assert result.modalities_used == ("audio", "vision")
    assert sorted(notes.noted) == [("code", "Unavailable"), ("text", "KeyError")]


async def test_the_requests_own_deadline_is_kept(build: Callable[..., Engine]) -> None:
    engine = build(limit_ms=60_000, **{modality: FakeEncoder(hangs=True) for modality in MODALITIES})
    with pytest.raises(DeadlineExceeded) as caught:
        await engine.process(MultimodalInput(text="t", deadline_ms=30), "r")
    assert caught.value.limit_ms == 30


async def test_when_all_fail_the_reasons_are_told(build: Callable[..., Engine]) -> None:
    with pytest.raises(Unavailable, match="text: no replica"):
        await build(text=FakeEncoder(error=Unavailable("no replica"))).process(MultimodalInput(text="t"), "r")


async def test_without_places_only_own_scores_tell_candidates_apart(build: Callable[..., Engine]) -> None:
    scores = np.array([0.0, 4.0], np.float32)
    engine = build(FakePlaces(error=RuntimeError()), audio=FakeEncoder(scores=scores))
    result = await engine.process(ALL, "r")
    assert result.candidates[0].candidate == "right"
    assert result.failed == {"candidates": "RuntimeError"}
    assert result.contributions["text"] == 0.0
    assert result.contributions["audio"] > 0.4


async def test_candidates_that_cannot_be_told_apart_are_an_error(build: Callable[..., Engine]) -> None:
    with pytest.raises(DeadlineExceeded, match="candidates"):
        await build(FakePlaces(hangs=True), limit_ms=60).process(ALL, "r")
    with pytest.raises(Unavailable, match="RuntimeError"):
        await build(FakePlaces(error=RuntimeError())).process(ALL, "r")


@pytest.mark.parametrize("media", [{"image": b"junk"}, {"audio": b"junk"}])
async def test_bad_media_end_the_request_at_once(build: Callable[..., Engine], media: dict[str, bytes]) -> None:
    stuck = FakeEncoder(hangs=True)
    # The guard is for the case that it waits for the stuck encoder after all.
    with pytest.raises(InvalidInput, match=next(iter(media))):
        async with asyncio.timeout(30):
            await build(limit_ms=60_000, text=stuck).process(MultimodalInput(text="t", **media), "r")
    await asyncio.sleep(0)
    assert stuck.cancelled


async def test_refusals_of_encoders_are_refusals(build: Callable[..., Engine]) -> None:
    with pytest.raises(TooLarge):
        await build(text=FakeEncoder(error=TooLarge("text", 2, 1, "words"))).process(ALL, "r")


async def test_candidates_are_placed_once(build: Callable[..., Engine]) -> None:
    places = FakePlaces()
    engine = build(places)
    await engine.process(MultimodalInput(text="t", candidates=("left",)), "r")
    result = await engine.process(MultimodalInput(text="t", candidates=("right", "left")), "r")
    await engine.process(MultimodalInput(text="t", candidates=("right", "left")), "r")
    assert places.asked == [("left",), ("right",)]
    assert [ranked.candidate for ranked in result.candidates] == ["left", "right"]


async def test_equal_candidates_keep_their_order(build: Callable[..., Engine]) -> None:
    even = FakeEncoder(scores=np.zeros(2, np.float32))
    result = await build(text=even).process(MultimodalInput(text="t", candidates=("right", "left")), "r")
    assert [ranked.candidate for ranked in result.candidates] == ["right", "left"]
    assert not result.confident


async def test_cancelling_a_request_cancels_its_work(build: Callable[..., Engine]) -> None:
    stuck = FakeEncoder(hangs=True)
    request = asyncio.ensure_future(build(limit_ms=60_000, text=stuck).process(MultimodalInput(text="t"), "r"))
    await stuck.asked.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert stuck.cancelled


async def test_work_that_was_cancelled_elsewhere_counts_as_failed() -> None:
    task = asyncio.ensure_future(asyncio.sleep(60))
    asyncio.get_running_loop().call_soon(task.cancel)
    gathered = await gather_until({"text": task}, 5.0)
    assert isinstance(gathered.failed["text"], asyncio.CancelledError)


def test_observers_need_not_do_anything() -> None:
    Observer().failed("r", "text", ValueError())
    Observer().late("r", "text", 1.0)


@given(st.lists(st.sampled_from("abcdefgh"), max_size=40), st.integers(1, 5))
def test_the_cache_keeps_the_most_recently_used(texts: list[str], size: int) -> None:
    cache = CandidateCache(size)
    recent: list[str] = []
    for text in texts:
        if cache.missing([text]):
            cache.put({text: np.full(2, ord(text), np.float32)})
        assert cache.known([text])[text][0] == ord(text)
        recent = [*(other for other in recent if other != text), text][-size:]
        assert len(cache) == len(recent)
        assert cache.missing(recent) == ()
    assert set(cache.known("abcdefgh")) == set(recent)


def test_rows_are_stacked_in_the_order_asked_for() -> None:
    assert stacked(["right", "left"], PLACES).tolist() == [[0, 1], [1, 0]]
