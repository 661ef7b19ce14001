"""The engine over encoders that are quick, late, broken or absent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from fusion_media import picture, sound
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.errors import DeadlineExceeded, InvalidInput, NotFound, Overloaded, TooLarge, Unavailable
from noodle_ray.fusion.calibration import UNFITTED
from noodle_ray.fusion.candidate_cache import CandidateCache, stacked
from noodle_ray.fusion.decoding import decode_audio, decode_image
from noodle_ray.fusion.engine import Engine, Observer
from noodle_ray.fusion.gathering import Latecomers, gather_until
from noodle_ray.fusion.inputs import Candidate, MultimodalInput
from noodle_ray.fusion.items import Item
from noodle_ray.fusion.modality import MODALITIES
from noodle_ray.fusion.ports import Placed
from noodle_ray.fusion.reading import Reading
from noodle_ray.fusion.remembered import Remembered, Turn
from noodle_ray.fusion.rule import Rule, Scores

PLACES = {"left": np.array([1, 0], np.float32), "right": np.array([0, 1], np.float32)}
IMAGE, SOUND = picture(), sound(np.zeros(1600, np.float32))
ALL = MultimodalInput(text="t", code="c", image=IMAGE, audio=SOUND, candidates=("left", "right"))


class FakeEncoder:
    """Reads everything as one place, after a while, or fails."""

    def __init__(self, place: str = "left", error: Exception | None = None, hangs: bool = False, **more: Any) -> None:
        self.place, self.error, self.more = place, error, more
        self.free = asyncio.Event()
        if not hangs:
            self.free.set()
        self.calls: list[tuple[Any, tuple[str, ...]]] = []
        self.cancelled = False
        self.asked = asyncio.Event()

    async def read(self, items: Sequence[Any], texts: tuple[str, ...]) -> list[Reading]:
        self.calls.append((items, texts))
        self.asked.set()
        try:
            await self.free.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.error:
            raise self.error
        return [Reading("fake/1", f"seen {self.place}", 1.0, PLACES[self.place], **self.more) for _ in items]


class FakePlaces:
    def __init__(self, hangs: bool = False, error: Exception | None = None, space: str = "") -> None:
        self.hangs, self.error, self.space = hangs, error, space
        self.asked: list[tuple[str, ...]] = []

    async def embed(self, texts: tuple[str, ...]) -> Placed:
        self.asked.append(texts)
        await asyncio.sleep(60 if self.hangs else 0)
        if self.error:
            raise self.error
        return Placed(self.space, np.stack([PLACES[text] for text in texts]))


class FakeEncoders:
    """The port Encoders: one fake for each modality. `version` is what all of them have now."""

    def __init__(self, encoders: Mapping[str, FakeEncoder], places: FakePlaces) -> None:
        self.encoders, self.places, self.version = encoders, places, "1"
        self.absent: set[str] = set()

    async def versions(self, modalities: Sequence[str]) -> dict[str, str]:
        return {modality: self.version for modality in modalities if modality not in self.absent}

    async def read(
        self, modality: str, version: str, items: Sequence[Any], texts: tuple[str, ...], within_s: float
    ) -> Sequence[Reading]:
        return await self.encoders[modality].read(items, texts)

    async def place(self, version: str, texts: tuple[str, ...], within_s: float) -> Placed:
        return await self.places.embed(texts)


class PlainDecoder:
    async def decode(self, modality: str, item: Item) -> Any:
        if isinstance(item, str):
            return item
        return decode_image(item) if modality == "vision" else decode_audio(item)


class FakeMemory:
    """The ports Sessions, Indexes and Heads over dictionaries."""

    def __init__(self) -> None:
        self.sessions: dict[str, Remembered] = {}
        self.notes: list[tuple[str, Turn]] = []
        self.indexes: dict[str, FakeIndex] = {}
        self.heads: dict[str, FakeHead] = {}

    async def remembered(self, session: str) -> Remembered:
        return self._found("session", self.sessions, session)

    async def note(self, session: str, turn: Turn) -> None:
        self.notes.append((session, turn))

    async def index(self, name: str) -> FakeIndex:
        return self._found("index", self.indexes, name)

    async def head(self, name: str) -> FakeHead:
        return self._found("head", self.heads, name)

    def _found(self, kind: str, known: Mapping[str, Any], name: str) -> Any:
        if name not in known:
            raise NotFound(kind, name)
        return known[name]


class FakeIndex:
    """Two entries, "left" and "right", that lie where these do."""

    rule = Rule(temperatures={"text": 0.05, "context": 0.05})
    names = ("left", "right")
    texts = ("a left one", "a right one")

    def meta(self, position: int) -> dict[str, Any]:
        return {"at": position}

    def search(self, request: MultimodalInput, readings: Mapping[str, Reading]) -> dict[str, Scores]:
        rows = np.stack([PLACES[name] for name in self.names])
        return {name: rows @ reading.embedding for name, reading in readings.items() if reading.embedding is not None}


class FakeHead:
    rule = Rule()
    labels = ("even", "odd")

    def scores(self, readings: Mapping[str, Reading]) -> dict[str, Scores]:
        return {name: np.array([0.0, 3.0]) for name in readings}


class Notes(Observer):
    def __init__(self) -> None:
        self.noted: list[tuple[str, str]] = []

    def failed(self, request_id: str, stage: str, error: BaseException) -> None:
        self.noted.append((stage, type(error).__name__))

    def late(self, request_id: str, stage: str, limit_ms: float) -> None:
        self.noted.append((stage, "late"))


class World:
    """An engine with all that it uses."""

    def __init__(
        self,
        places: FakePlaces | None = None,
        limit_ms: float = 5000,
        observer: Observer | None = None,
        shared: Any = None,
        **encoders: FakeEncoder,
    ) -> None:
        everyone = {modality: encoders.get(modality, FakeEncoder()) for modality in MODALITIES}
        self.encoders = FakeEncoders(everyone, places or FakePlaces())
        self.memory = FakeMemory()
        self.engine = Engine(
            self.encoders,
            PlainDecoder(),
            UNFITTED,
            self.memory,
            self.memory,
            self.memory,
            limit_ms=limit_ms,
            threshold=0.7,
            observer=observer,
            shared=shared,
        )

    async def process(self, request: MultimodalInput, request_id: str = "r") -> Any:
        return await self.engine.process(request, request_id)


@pytest.fixture
def build() -> Callable[..., World]:
    return World


async def test_four_modalities_become_one_answer(build: Callable[..., World]) -> None:
    result = await build().process(ALL, "r1")
    assert result.request_id == "r1"
    assert result.candidates[0].candidate == "left"
    assert result.confidence == result.candidates[0].probability > 0.7
    assert result.confident
    assert result.modalities_used == MODALITIES
    assert set(result.contributions) == set(result.readings) == set(result.encoders) == set(MODALITIES)
    assert {"decode", "fuse", "total", "candidates", *MODALITIES} == set(result.stage_ms)
    assert result.embedding == (1.0, 0.0)
    assert (result.ask, result.late, result.failed, result.cached) == ("choose", (), {}, ())
    assert sum(ranked.probability for ranked in result.candidates) == pytest.approx(1.0)


async def test_media_arrive_decoded_and_candidates_with_them(build: Callable[..., World]) -> None:
    vision, audio, text = FakeEncoder(), FakeEncoder(), FakeEncoder()
    await build(vision=vision, audio=audio, text=text).process(ALL, "r")
    assert vision.calls[0][0][0].shape == (30, 40, 3)
    assert audio.calls[0][0][0].shape == (1600,)
    assert text.calls == [(["t"], ("left", "right"))]


async def test_without_candidates_there_is_an_embedding_alone(build: Callable[..., World]) -> None:
    places = FakePlaces()
    result = await build(places).process(MultimodalInput(text="t", code="c"), "r")
    assert (result.candidates, result.confidence, result.confident) == ((), 0.0, False)
    assert result.embedding == (1.0, 0.0)
    assert result.contributions == pytest.approx({"text": 0.0, "code": 0.0})
    assert places.asked == []


async def test_a_late_encoder_is_left_out_and_its_reading_is_there_the_next_time(build: Callable[..., World]) -> None:
    slow, notes = FakeEncoder(hangs=True), Notes()
    world = build(limit_ms=80, audio=slow, observer=notes)
    result = await world.process(ALL)
    assert result.late == ("audio",)
    assert result.modalities_used == ("text", "vision", "code")
    assert result.candidates[0].candidate == "left"
    assert notes.noted == [("audio", "late")]
    slow.free.set()
    await asyncio.sleep(0.01)
    again = await world.process(ALL)
    assert (again.late, again.cached) == ((), MODALITIES)
    assert len(slow.calls) == 1


async def test_a_failing_encoder_is_left_out_with_the_reason(build: Callable[..., World]) -> None:
    notes = Notes()
    engine = build(
        code=FakeEncoder(error=Unavailable("no replica")), text=FakeEncoder(error=KeyError("secret")), observer=notes
    )
    result = await engine.process(ALL, "r")
    assert result.failed == {"text": "KeyError", "code": "no replica"}
    assert result.modalities_used == ("audio", "vision")
    assert sorted(notes.noted) == [("code", "Unavailable"), ("text", "KeyError")]


async def test_the_requests_own_deadline_is_kept(build: Callable[..., World]) -> None:
    engine = build(limit_ms=60_000, **{modality: FakeEncoder(hangs=True) for modality in MODALITIES})
    with pytest.raises(DeadlineExceeded) as caught:
        await engine.process(MultimodalInput(text="t", deadline_ms=30), "r")
    assert caught.value.limit_ms == 30


async def test_what_the_way_takes_is_a_part_of_the_deadline(build: Callable[..., World]) -> None:
    world = build(limit_ms=60_000, text=FakeEncoder(hangs=True))
    started_s = time.perf_counter()
    result = await world.engine.process(MultimodalInput(text="t", code="c"), "r", spent_ms=59_900)
    assert result.late == ("text",)
    assert time.perf_counter() - started_s < 30


async def test_when_all_fail_the_reasons_are_told(build: Callable[..., World]) -> None:
    with pytest.raises(Unavailable, match="text: no replica"):
        await build(text=FakeEncoder(error=Unavailable("no replica"))).process(MultimodalInput(text="t"), "r")


async def test_without_places_only_own_scores_tell_candidates_apart(build: Callable[..., World]) -> None:
    scores = np.array([0.0, 4.0], np.float32)
    engine = build(FakePlaces(error=RuntimeError()), audio=FakeEncoder(scores=scores))
    result = await engine.process(ALL, "r")
    assert result.candidates[0].candidate == "right"
    assert result.failed == {"candidates": "RuntimeError"}
    assert result.contributions["text"] == 0.0
    assert result.contributions["audio"] > 0.4


async def test_candidates_that_cannot_be_told_apart_are_an_error(build: Callable[..., World]) -> None:
    with pytest.raises(DeadlineExceeded, match="candidates"):
        await build(FakePlaces(hangs=True), limit_ms=60).process(ALL, "r")
    with pytest.raises(Unavailable, match="RuntimeError"):
        await build(FakePlaces(error=RuntimeError())).process(ALL, "r")


@pytest.mark.parametrize("media", [{"image": b"junk"}, {"audio": b"junk"}])
async def test_bad_media_end_the_request_at_once(build: Callable[..., World], media: dict[str, bytes]) -> None:
    stuck = FakeEncoder(hangs=True)
    # The guard is for the case that it waits for the stuck encoder after all.
    with pytest.raises(InvalidInput, match=next(iter(media))):
        async with asyncio.timeout(30):
            await build(limit_ms=60_000, text=stuck).process(MultimodalInput(text="t", **media), "r")
    await asyncio.sleep(0)
    assert stuck.cancelled


async def test_refusals_of_encoders_are_refusals(build: Callable[..., World]) -> None:
    with pytest.raises(TooLarge):
        await build(text=FakeEncoder(error=TooLarge("text", 2, 1, "words"))).process(ALL, "r")


async def test_candidates_are_placed_once(build: Callable[..., World]) -> None:
    places = FakePlaces()
    engine = build(places)
    await engine.process(MultimodalInput(text="t", candidates=("left",)), "r")
    result = await engine.process(MultimodalInput(text="t", candidates=("right", "left")), "r")
    await engine.process(MultimodalInput(text="t", candidates=("right", "left")), "r")
    assert places.asked == [("left",), ("right",)]
    assert [ranked.candidate for ranked in result.candidates] == ["left", "right"]


async def test_equal_candidates_keep_their_order(build: Callable[..., World]) -> None:
    even = FakeEncoder(scores=np.zeros(2, np.float32))
    result = await build(text=even).process(MultimodalInput(text="t", candidates=("right", "left")), "r")
    assert [ranked.candidate for ranked in result.candidates] == ["right", "left"]
    assert not result.confident


async def test_cancelling_a_request_cancels_its_work(build: Callable[..., World]) -> None:
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


async def test_nobody_need_observe(build: Callable[..., World]) -> None:
    world = build(limit_ms=300, text=FakeEncoder(hangs=True), code=FakeEncoder(error=KeyError()))
    result = await world.process(ALL)
    assert (result.late, result.failed) == (("text",), {"code": "KeyError"})


async def test_what_was_read_is_not_read_again(build: Callable[..., World]) -> None:
    text, audio = FakeEncoder(), FakeEncoder(needs_texts=True)
    world = build(text=text, audio=audio)
    first = await world.process(MultimodalInput(text="t", audio=SOUND, candidates=("left", "right")))
    other = await world.process(MultimodalInput(text="t", audio=SOUND, candidates=("right", "left")))
    same = await world.process(MultimodalInput(text="t", audio=SOUND, candidates=("right", "left")))
    assert (first.cached, other.cached, same.cached) == ((), ("text",), ("text", "audio"))
    # Only what depends on the candidates is read anew for others.
    assert (len(text.calls), len(audio.calls)) == (1, 2)
    assert (same.candidates, same.embedding) == (other.candidates, other.embedding)
    world.encoders.version = "2"
    assert (await world.process(MultimodalInput(text="t"))).cached == ()


async def test_several_items_of_a_modality_are_one_reading(build: Callable[..., World]) -> None:
    text = FakeEncoder()
    result = await build(text=text).process(MultimodalInput(text=("a", "b", "a"), candidates=("left", "right")))
    assert text.calls == [(["a", "b"], ("left", "right"))]
    assert result.readings == {"text": "seen left; seen left; seen left"}
    alone = await build().process(MultimodalInput(text="a", candidates=("left", "right")))
    assert result.confidence == pytest.approx(alone.confidence)


async def test_candidates_may_be_of_any_modality(build: Callable[..., World]) -> None:
    code = FakeEncoder(place="right")
    request = MultimodalInput(
        text="t", candidates=("left", Candidate(code="def right(): ..."), Candidate(label="mine", image=IMAGE), "right")
    )
    result = await build(code=code, text=FakeEncoder(place="right")).process(request)
    assert {ranked.candidate for ranked in result.candidates[:2]} == {"code 2", "right"}
    assert [ranked.candidate for ranked in result.candidates[2:]] == ["left", "mine"]
    assert code.calls == [(["def right(): ..."], ())]


async def test_encoders_of_another_space_are_left_out_with_the_reason(build: Callable[..., World]) -> None:
    world = build(FakePlaces(space="a"), text=FakeEncoder(space="a"), code=FakeEncoder(place="right", space="b"))
    result = await world.process(MultimodalInput(text="t", code="c", candidates=("left", "right")))
    assert result.modalities_used == ("text",)
    assert "space b" in result.failed["code"]


async def test_a_modality_that_nothing_reads_has_failed(build: Callable[..., World]) -> None:
    world = build()
    world.encoders.absent = {"audio"}
    result = await world.process(ALL)
    assert result.failed == {"audio": "no encoder reads audio here"}
    assert result.modalities_used == ("text", "vision", "code")


async def test_finding_in_an_index(build: Callable[..., World]) -> None:
    audio = FakeEncoder(place="right")
    world = build(text=FakeEncoder(place="right"), audio=audio)
    world.memory.indexes["mine"] = FakeIndex()
    result = await world.process(MultimodalInput(text="t", audio=SOUND, index="mine", top=1))
    assert result.ask == "find"
    assert [(ranked.candidate, ranked.meta) for ranked in result.candidates] == [("right", {"at": 1})]
    assert result.confident
    assert set(result.contributions) == {"text", "audio"}
    assert audio.calls[0][1] == FakeIndex.texts
    with pytest.raises(NotFound, match="yours"):
        await world.process(MultimodalInput(text="t", index="yours"))


async def test_classifying_with_a_head(build: Callable[..., World]) -> None:
    world = build()
    world.memory.heads["parity"] = FakeHead()
    result = await world.process(MultimodalInput(text="t", head="parity"))
    assert (result.ask, result.candidates[0].candidate) == ("classify", "odd")
    with pytest.raises(NotFound, match="size"):
        await world.process(MultimodalInput(text="t", head="size"))


async def test_a_session_is_evidence_that_is_shown_and_can_be_left_out(build: Callable[..., World]) -> None:
    even = FakeEncoder(scores=np.zeros(2, np.float32))
    world = build(text=even)
    world.memory.sessions["s"] = Remembered(3, "", PLACES["right"], 1.0)
    request = MultimodalInput(text="t", candidates=("left", "right"), session="s")
    result = await world.process(request)
    assert result.candidates[0].candidate == "right"
    assert result.context is not None
    assert (result.context.turns, result.context.counted) == (3, True)
    assert (result.context.candidate_without, result.context.confidence_without) == ("left", 0.5)
    assert result.context.contribution > 0.2
    without = await world.process(request.model_copy(update={"use_context": False}))
    assert without.confidence == pytest.approx(0.5)
    assert without.context is not None
    assert not without.context.counted
    await asyncio.sleep(0)
    (session, turn), _ = world.memory.notes
    assert (session, turn.answer) == ("s", "right")
    assert turn.answer_place is not None
    assert turn.answer_place.tolist() == [0.0, 1.0]
    assert world.memory.notes[1][1].answer is None  # for it was not confident
    with pytest.raises(NotFound):
        await world.process(MultimodalInput(text="t", session="another"))


async def test_an_empty_session_and_one_of_another_space_do_not_count(build: Callable[..., World]) -> None:
    world = build(FakePlaces(space="a"), text=FakeEncoder(space="a"))
    for place, space in ((None, ""), (PLACES["right"], "b")):
        world.memory.sessions["s"] = Remembered(0, space, place, 0.0)
        result = await world.process(MultimodalInput(text="t", candidates=("left", "right"), session="s"))
        assert result.context is not None
        assert not result.context.counted
        assert result.candidates[0].candidate == "left"


async def test_embedding_in_a_session_is_remembered(build: Callable[..., World]) -> None:
    world = build()
    world.memory.sessions["s"] = Remembered(0)
    result = await world.process(MultimodalInput(text="t", session="s"))
    assert result.context is not None
    assert (result.context.turns, result.context.counted) == (0, False)
    await asyncio.sleep(0)
    assert world.memory.notes[0][1].place is not None


async def refused_behind_another(world: World, each_s: float) -> Overloaded:
    """What a text gets whose encoder, which takes so long for one, still reads one that nobody waits for any more."""
    admission = world.engine._senses.admission
    admission.end(admission.begin("text", 0.0), each_s, is_read=True)
    with pytest.raises(DeadlineExceeded):
        await world.process(MultimodalInput(text="1"))
    with pytest.raises(Overloaded) as caught:
        await world.process(MultimodalInput(text="2"))
    return caught.value


async def test_what_cannot_be_read_in_time_is_refused_at_once(build: Callable[..., World]) -> None:
    slow = FakeEncoder(hangs=True)
    world = build(limit_ms=50, text=slow)
    assert (await refused_behind_another(world, 0.1)).retry_after_s > 0
    assert len(slow.calls) == 1
    # With another modality there is an answer, without the one whose queue is too long.
    result = await world.process(MultimodalInput(text="3", code="c"))
    assert (result.modalities_used, result.late) == (("code",), ("text",))
    slow.free.set()
    await asyncio.sleep(0.01)
    assert (await world.process(MultimodalInput(text="4"))).modalities_used == ("text",)


async def test_nothing_in_time_behind_others_is_too_much_asked(build: Callable[..., World]) -> None:
    slow = FakeEncoder(hangs=True)
    refused = await refused_behind_another(build(limit_ms=50, text=slow), 0.001)
    assert refused.retry_after_s == pytest.approx(0.001)
    assert len(slow.calls) == 2


class SharedDict:
    """The port SharedReadings."""

    def __init__(self) -> None:
        self.readings: dict[bytes, Reading] = {}

    async def recall(self, keys: Sequence[bytes]) -> dict[bytes, Reading]:
        return {key: self.readings[key] for key in keys if key in self.readings}

    async def remember(self, readings: Mapping[bytes, Reading]) -> None:
        self.readings |= readings


async def test_replicas_share_what_they_have_read(build: Callable[..., World]) -> None:
    shared, other = SharedDict(), FakeEncoder()
    await build(shared=shared).process(MultimodalInput(text="t"))
    result = await build(shared=shared, text=other).process(MultimodalInput(text="t"))
    assert (result.cached, other.calls) == (("text",), [])


async def test_latecomers_are_bounded_in_number_and_time() -> None:
    late = Latecomers(limit=1, patience_s=0.01)
    first, second = (asyncio.ensure_future(asyncio.sleep(60)) for _ in range(2))
    late.keep(first)
    late.keep(second)
    await asyncio.sleep(0.05)
    assert first.cancelled()
    assert second.cancelled()
    assert len(late) == 0


@given(st.lists(st.sampled_from("abcdefgh"), max_size=40), st.integers(1, 5))
def test_the_cache_keeps_the_most_recently_used(texts: list[str], size: int) -> None:
    cache = CandidateCache(size)
    recent: list[str] = []
    for text in texts:
        if cache.missing("1", [text]):
            cache.put("1", "space", {text: np.full(2, ord(text), np.float32)})
        assert cache.known("1", [text])[text][0] == ord(text)
        recent = [*(other for other in recent if other != text), text][-size:]
        assert len(cache) == len(recent)
        assert cache.missing("1", recent) == ()
    assert set(cache.known("1", "abcdefgh")) == set(recent)
    assert cache.known("2", "abcdefgh") == {}
    assert cache.space("1") == ("space" if texts else "")


def test_rows_are_stacked_in_the_order_asked_for() -> None:
    assert stacked(["right", "left"], PLACES).tolist() == [[0, 1], [1, 0]]
    assert len(stacked([], PLACES)) == 0
