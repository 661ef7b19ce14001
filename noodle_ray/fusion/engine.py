"""The fusion engine: sends each modality to its encoder, waits until the deadline and fuses what came."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from noodle_ray.errors import DeadlineExceeded, NoodleError, Unavailable
from noodle_ray.fusion import limits
from noodle_ray.fusion.calibration import Calibration
from noodle_ray.fusion.candidate_cache import CandidateCache, stacked
from noodle_ray.fusion.deadline import Deadline
from noodle_ray.fusion.decoding import decode_audio, decode_image
from noodle_ray.fusion.fusing import (
    LogProbabilities,
    contributions,
    embedding_shares,
    evidence,
    joint_embedding,
    posterior,
    weight_of,
)
from noodle_ray.fusion.gathering import Gathered, gather_until
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.fusion.modality import MODALITIES
from noodle_ray.fusion.reading import Matrix, Reading
from noodle_ray.fusion.result import FusionResult, RankedCandidate

CANDIDATES = "candidates"
DECODERS: dict[str, Callable[[bytes], Any]] = {"vision": decode_image, "audio": decode_audio}


class Encoder(Protocol):
    """Port: reads one modality. `content` is text, code, Pixels or Samples; `candidates` are for its own scores."""

    async def encode(self, content: Any, candidates: tuple[str, ...]) -> Reading: ...


class CandidateEncoder(Protocol):
    """Port: places texts in the anchor space, one unit vector a row."""

    async def embed(self, texts: tuple[str, ...]) -> Matrix: ...


class Observer:
    """Hook: told of what was left out of an answer. Does nothing by default."""

    def failed(self, request_id: str, stage: str, error: BaseException) -> None: ...

    def late(self, request_id: str, stage: str, limit_ms: float) -> None: ...


class Stages:
    """Milliseconds by stage. A stage that is entered several times at once counts as long as its longest."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started_s = clock()
        self.ms: dict[str, float] = {}

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        start = self._clock()
        try:
            yield
        finally:
            self.ms[stage] = max(self.ms.get(stage, 0.0), (self._clock() - start) * 1000.0)

    def with_total(self) -> dict[str, float]:
        return {**self.ms, "total": (self._clock() - self._started_s) * 1000.0}


class Engine:
    """Answers requests with the encoders behind its ports.

    limit_ms: the service's own deadline. threshold: the confidence from which an answer counts as confident.
    pool: runs the decoders, so that they do not hold up the event loop.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        candidates: CandidateEncoder,
        calibration: Calibration,
        *,
        limit_ms: float,
        threshold: float,
        pool: Executor,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._encoders, self._candidates, self._calibration = encoders, candidates, calibration
        self._limit_ms, self._threshold = limit_ms, threshold
        self._pool, self._observer, self._clock = pool, observer or Observer(), clock
        self._cache = CandidateCache(limits.CACHED_CANDIDATES)

    async def process(self, request: MultimodalInput, request_id: str) -> FusionResult:
        """One answer from what came in time.

        Raises InvalidInput and TooLarge for media that cannot be decoded, DeadlineExceeded where nothing usable came
        in time, Unavailable where every encoder failed.
        """
        deadline = Deadline.after(self._clock(), self._limit_ms, request.deadline_ms)
        stages = Stages(self._clock)
        tasks = {name: asyncio.ensure_future(work) for name, work in self._work(request, stages)}
        gathered = await gather_until(tasks, deadline.for_encoders_s(self._clock()))
        self._report(gathered, request_id, deadline)
        answer = _Answer(request, gathered, deadline, self._calibration)
        with stages.timed("fuse"):
            fields = answer.fields(self._threshold)
        return FusionResult(request_id=request_id, stage_ms=stages.with_total(), **fields)

    def _work(self, request: MultimodalInput, stages: Stages) -> Iterator[tuple[str, Any]]:
        for modality, content in request.given():
            yield modality, self._sense(modality, content, request.candidates, stages)
        if request.candidates:
            yield CANDIDATES, self._place(request.candidates, stages)

    async def _sense(self, modality: str, content: str | bytes, candidates: tuple[str, ...], stages: Stages) -> Reading:
        decoded: Any = content
        if isinstance(content, bytes):
            with stages.timed("decode"):
                decoder = DECODERS[modality]
                decoded = await asyncio.get_running_loop().run_in_executor(self._pool, decoder, content)
        with stages.timed(modality):
            return await self._encoders[modality].encode(decoded, candidates)

    async def _place(self, candidates: tuple[str, ...], stages: Stages) -> Matrix:
        with stages.timed(CANDIDATES):
            vectors = self._cache.known(candidates)
            if missing := self._cache.missing(candidates):
                rows = await self._candidates.embed(missing)
                fresh = dict(zip(missing, rows, strict=True))
                self._cache.put(fresh)
                vectors |= fresh
            return stacked(candidates, vectors)

    def _report(self, gathered: Gathered, request_id: str, deadline: Deadline) -> None:
        for stage in gathered.late:
            self._observer.late(request_id, stage, deadline.limit_ms)
        for stage, error in gathered.failed.items():
            self._observer.failed(request_id, stage, error)


class _Answer:
    """Puts the result together from what was gathered."""

    def __init__(
        self, request: MultimodalInput, gathered: Gathered, deadline: Deadline, calibration: Calibration
    ) -> None:
        self._wanted, self._gathered = request.candidates, gathered
        self._deadline, self._calibration = deadline, calibration
        self._readings: dict[str, Reading] = {
            modality: gathered.results[modality] for modality in MODALITIES if modality in gathered.results
        }
        self._rows: Matrix | None = gathered.results.get(CANDIDATES)

    def fields(self, threshold: float) -> dict[str, Any]:
        if not self._readings:
            raise self._nothing("no encoder")
        choice = self._choice(threshold) if self._wanted else {"contributions": embedding_shares(self._readings)}
        joint = joint_embedding(self._readings)
        return {
            "embedding": () if joint is None else tuple(map(float, joint)),
            "modalities_used": tuple(self._readings),
            "late": self._gathered.late,
            "failed": {name: reason(error) for name, error in self._gathered.failed.items()},
            "encoders": {name: reading.encoder for name, reading in self._readings.items()},
            "readings": {name: reading.seen for name, reading in self._readings.items()},
            **choice,
        }

    def _choice(self, threshold: float) -> dict[str, Any]:
        evidences = self._evidences()
        if not evidences:
            raise self._nothing("nothing that tells the candidates apart")
        weights = {name: weight_of(name, self._readings[name], self._calibration) for name in evidences}
        probabilities = posterior(list(evidences.values()), list(weights.values()), len(self._wanted))
        # Equal probabilities keep the order in which the candidates were given.
        order = np.argsort(-probabilities, kind="stable")
        confidence = float(probabilities[order[0]])
        return {
            "candidates": tuple(_ranked(self._wanted[index], probabilities[index]) for index in order),
            "confidence": confidence,
            "confident": confidence >= threshold,
            "contributions": self._contributions(evidences, weights),
        }

    def _evidences(self) -> dict[str, LogProbabilities]:
        found = {
            name: evidence(name, reading, self._rows, self._calibration) for name, reading in self._readings.items()
        }
        return {name: log_probabilities for name, log_probabilities in found.items() if log_probabilities is not None}

    def _contributions(self, evidences: dict[str, LogProbabilities], weights: dict[str, float]) -> dict[str, float]:
        shares = contributions(evidences, weights, len(self._wanted))
        return {name: shares.get(name, 0.0) for name in self._readings}

    def _nothing(self, what: str) -> NoodleError:
        if self._gathered.late or not self._gathered.failed:
            late = ", ".join(self._gathered.late)
            return DeadlineExceeded(f"fusion ({what} came in time; late: {late})", self._deadline.limit_ms)
        reasons = "; ".join(f"{name}: {reason(error)}" for name, error in self._gathered.failed.items())
        return Unavailable(f"fusion has {what}: {reasons}")


def _ranked(candidate: str, probability: float) -> RankedCandidate:
    return RankedCandidate(candidate=candidate, probability=float(probability))


def reason(error: BaseException) -> str:
    """Why something failed, for the caller: our own messages in full, of other errors only the kind."""
    return error.message if isinstance(error, NoodleError) else type(error).__name__
