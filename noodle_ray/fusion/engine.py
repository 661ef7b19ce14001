"""The fusion engine: has everything read that is given, waits until the deadline and fuses what came."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from noodle_ray.errors import DeadlineExceeded, NoodleError, Overloaded, Unavailable
from noodle_ray.fusion import limits
from noodle_ray.fusion.answering import (
    FOUND,
    Decision,
    Evidence,
    chosen_evidence,
    classified_evidence,
    context_effect,
    decide,
    found_evidence,
    in_space,
)
from noodle_ray.fusion.calibration import Calibration
from noodle_ray.fusion.candidate_cache import CandidateCache
from noodle_ray.fusion.deadline import Deadline
from noodle_ray.fusion.fusing import embedding_shares, joint_embedding
from noodle_ray.fusion.gathering import Gathered, Latecomers, gather_until
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.fusion.modality import CONTEXT, MODALITIES
from noodle_ray.fusion.ports import (
    Classifier,
    Decoder,
    Encoders,
    Heads,
    Indexes,
    Placed,
    Searchable,
    Sessions,
    SharedReadings,
)
from noodle_ray.fusion.reading import Reading
from noodle_ray.fusion.reading_cache import ReadingCache
from noodle_ray.fusion.remembered import Remembered, Turn
from noodle_ray.fusion.result import FusionResult
from noodle_ray.fusion.sensing import ANCHOR, Inquiry, Senses
from noodle_ray.fusion.stages import Stages

CANDIDATES = "candidates"
LATE_LIMIT, LATE_PATIENCE_S = 64, 10.0
"""Readings that go on when their request has been answered, for the next one that asks the same."""


class Observer:
    """Hook: told of what was left out of an answer. Does nothing by default."""

    def failed(self, request_id: str, stage: str, error: BaseException) -> None: ...

    def late(self, request_id: str, stage: str, limit_ms: float) -> None: ...


class Engine:
    """Answers requests with what is behind its ports.

    limit_ms: the service's own deadline. threshold: the confidence from which an answer counts as confident.
    cache_bytes: how much memory readings are remembered in.
    """

    def __init__(
        self,
        encoders: Encoders,
        decoder: Decoder,
        calibration: Calibration,
        sessions: Sessions,
        indexes: Indexes,
        heads: Heads,
        *,
        limit_ms: float,
        threshold: float,
        cache_bytes: int = limits.CACHE_BYTES,
        shared: SharedReadings | None = None,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._encoders, self._calibration = encoders, calibration
        self._sessions, self._indexes, self._heads = sessions, indexes, heads
        self._limit_ms, self._threshold = limit_ms, threshold
        self._observer, self._clock = observer or Observer(), clock
        readings, places = ReadingCache(cache_bytes), CandidateCache(limits.CACHED_CANDIDATES)
        self._senses = Senses(encoders, decoder, readings, places, shared, clock)
        self._late = Latecomers(LATE_LIMIT, LATE_PATIENCE_S)
        self._notes: set[asyncio.Task[None]] = set()

    @property
    def senses(self) -> Senses:
        """What reads items: also for who reads what is no request."""
        return self._senses

    async def process(self, request: MultimodalInput, request_id: str, spent_ms: float = 0.0) -> FusionResult:
        """One answer from what came in time. `spent_ms`: what the way here has taken, and the way back will take.

        Raises InvalidInput and TooLarge for what cannot be decoded, NotFound for an index, head or session that is not
        there, DeadlineExceeded where nothing usable came in time, Overloaded where that is because the encoders have
        too much to do, Unavailable where every encoder failed.
        """
        begun_s, stages = self._clock() - spent_ms / 1000, Stages(self._clock)
        deadline = Deadline.after(begun_s, self._limit_ms, request.deadline_ms)
        try:
            async with asyncio.timeout(deadline.for_encoders_s(self._clock())):
                known = await self._look_up(request)
        except TimeoutError:
            raise DeadlineExceeded("fusion (before anything was read)", deadline.limit_ms) from None
        inquiry = Inquiry(request, deadline, stages, known.versions, known.texts)
        gathered = await self._gather(inquiry)
        self._report(gathered, request_id, deadline)
        with stages.timed("fuse"):
            answer = _Answer(inquiry, gathered, known, self._calibration)
            fields = answer.fields(self._threshold)
        if request.session is not None:
            self._note(request.session, answer.turn(fields))
        return FusionResult(request_id=request_id, stage_ms=stages.with_total(), **fields)

    async def _look_up(self, request: MultimodalInput) -> _Known:
        """Whatever the request names, and which encoders will read it. Raises NotFound."""
        wanted = {ANCHOR, *(modality for modality, _ in request.given())}
        wanted |= {candidate.modality for candidate in request.candidates}
        versions = await self._encoders.versions(sorted(wanted))
        index = await self._indexes.index(request.index) if request.index else None
        head = await self._heads.head(request.head) if request.head else None
        session = await self._sessions.remembered(request.session) if request.session else None
        return _Known(versions, index.texts if index is not None else request.texts(), index, head, session)

    async def _gather(self, inquiry: Inquiry) -> Gathered:
        now_s = self._clock()
        given = dict(inquiry.request.given())
        admitted = self._senses.admission.admit(given, inquiry.deadline.for_encoders_s(now_s))
        inquiry.busy_s = self._senses.admission.busy_s(given)
        tasks = {name: asyncio.ensure_future(work) for name, work in self._work(inquiry, given, admitted)}
        gathered = await gather_until(tasks, inquiry.deadline.for_encoders_s(now_s))
        for name in gathered.late:
            self._late.keep(tasks[name])
        return Gathered(
            gathered.results,
            (*gathered.late, *(modality for modality in given if modality not in admitted)),
            gathered.failed,
        )

    def _work(self, inquiry: Inquiry, given: Mapping[str, Any], admitted: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        for modality in admitted:
            yield modality, self._senses.read(inquiry, modality, given[modality], inquiry.texts)
        if inquiry.request.candidates:
            yield CANDIDATES, self._senses.place(inquiry)

    def _report(self, gathered: Gathered, request_id: str, deadline: Deadline) -> None:
        for stage in gathered.late:
            self._observer.late(request_id, stage, deadline.limit_ms)
        for stage, error in gathered.failed.items():
            self._observer.failed(request_id, stage, error)

    def _note(self, session: str, turn: Turn) -> None:
        """The session is told beside the answer: nobody waits for that."""
        task = asyncio.ensure_future(self._sessions.note(session, turn))
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)


@dataclass(frozen=True, slots=True)
class _Known:
    """What a request refers to, as it was found; `texts` are for encoders that score texts themselves."""

    versions: dict[str, str]
    texts: tuple[str, ...]
    index: Searchable | None
    head: Classifier | None
    session: Remembered | None


class _Answer:
    """Puts the result together from what was gathered."""

    def __init__(self, inquiry: Inquiry, gathered: Gathered, known: _Known, calibration: Calibration) -> None:
        self._inquiry, self._request, self._known = inquiry, inquiry.request, known
        self._calibration = calibration
        self._placed: Placed | None = gathered.results.get(CANDIDATES)
        read = {name: gathered.results[name] for name in MODALITIES if name in gathered.results}
        self._readings, strangers = in_space(read, self._space(read))
        self._late, self._failed = gathered.late, gathered.failed | strangers

    def _space(self, readings: Mapping[str, Reading]) -> str:
        """Where this answer's embeddings are compared: the anchor's space of the version that answers."""
        if self._placed is not None and self._placed.space:
            return self._placed.space
        spaces = [reading.space for reading in readings.values() if reading.embedding is not None]
        return readings[ANCHOR].space if ANCHOR in readings else (spaces[0] if spaces else "")

    def fields(self, threshold: float) -> dict[str, Any]:
        if not self._readings:
            raise self._nothing("no encoder")
        decision = None if self._request.ask == "embed" else self._decide()
        joint = joint_embedding(self._readings)
        confidence = decision.ranked[0].probability if decision is not None else 0.0
        return {
            "ask": self._request.ask,
            "embedding": () if joint is None else tuple(map(float, joint)),
            "candidates": decision.ranked if decision is not None else (),
            "confidence": confidence,
            "confident": decision is not None and confidence >= threshold,
            "contributions": self._contributions(decision),
            "modalities_used": tuple(self._readings),
            "late": self._late,
            "failed": {name: reason(error) for name, error in self._failed.items()},
            "cached": tuple(name for name in self._readings if name in self._inquiry.cached),
            "context": self._context_effect(decision),
            "encoders": {name: reading.encoder for name, reading in self._readings.items()},
            "readings": {name: reading.seen for name, reading in self._readings.items()},
        }

    def _decide(self) -> Decision:
        evidence = self._evidence()
        if not evidence.experts:
            raise self._nothing("nothing that tells the candidates apart")
        return decide(evidence, self._request.top or (FOUND if self._request.ask == "find" else None))

    def _evidence(self) -> Evidence:
        readings = self._readings | self._context()
        if self._known.index is not None:
            return found_evidence(self._known.index, self._request, readings)
        if self._known.head is not None:
            return classified_evidence(self._known.head, self._readings)
        return chosen_evidence(self._request, readings, self._placed, self._calibration)

    def _context(self) -> dict[str, Reading]:
        """What the session remembers, as one more reading; none where it is not to count, or of another space."""
        session = self._known.session
        if session is None or session.place is None or not self._request.use_context:
            return {}
        reading = Reading(CONTEXT, "", session.strength, session.place, space=session.space)
        fitting, _ = in_space({CONTEXT: reading}, self._space(self._readings))
        return fitting

    def _context_effect(self, decision: Decision | None) -> Any:
        session = self._known.session
        return None if session is None else context_effect(session.turns, self._request.use_context, decision)

    def _contributions(self, decision: Decision | None) -> dict[str, float]:
        if decision is None:
            return embedding_shares(self._readings)
        return {name: decision.contributions.get(name, 0.0) for name in self._readings}

    def turn(self, fields: Mapping[str, Any]) -> Turn:
        """What the session is to remember of this request: an answer only where it was confident."""
        joint = joint_embedding(self._readings)
        space = self._space(self._readings)
        if not fields["confident"]:
            return Turn(space, joint)
        name = fields["candidates"][0].candidate
        if self._placed is None:
            return Turn(space, joint, name)
        return Turn(space, joint, name, self._placed.rows[self._request.names().index(name)])

    def _nothing(self, what: str) -> NoodleError:
        if self._late and self._inquiry.busy_s:
            return Overloaded("fusion", self._inquiry.busy_s)
        if self._late or not self._failed:
            late = ", ".join(self._late)
            return DeadlineExceeded(f"fusion ({what} came in time; late: {late})", self._inquiry.deadline.limit_ms)
        reasons = "; ".join(f"{name}: {reason(error)}" for name, error in self._failed.items())
        return Unavailable(f"fusion has {what}: {reasons}")


def reason(error: BaseException) -> str:
    """Why something failed, for the caller: our own messages in full, of other errors only the kind."""
    return error.message if isinstance(error, NoodleError) else type(error).__name__
