"""The fusion service on Ray Serve: the deployment that answers requests, with encoders that are modules."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from ray import serve
from ray.serve.handle import DeploymentHandle

from noodle_ray.fusion.calibration import load_calibration
from noodle_ray.fusion.catalogue import Catalogue
from noodle_ray.fusion.decoder_pool import DecoderPool
from noodle_ray.fusion.decoding import check
from noodle_ray.fusion.engine import Engine, Observer
from noodle_ray.fusion.index_messages import IndexInfo, KnownQuery, NewEntry
from noodle_ray.fusion.indexing import Indexer
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.fusion.modality import MODALITIES
from noodle_ray.fusion.ports import Encoders
from noodle_ray.fusion.result import FusionResult
from noodle_ray.fusion_models.keeper import keeper_deployment
from noodle_ray.fusion_models.keeper_ports import (
    Keeper,
    KeptHeadsPort,
    KeptIndexesPort,
    KeptReadingsPort,
    KeptSessionsPort,
)
from noodle_ray.logs import configure_logs
from noodle_ray.precedence import go_ahead
from noodle_ray.settings import Settings

ENGINE_CPUS = 0.1
"""Serve counts it against the node's CPUs for as long as the replica lives, busy or not."""
ENGINE_ONGOING = 256
"""Requests inside one engine: more than can be answered in time, so that it is the engine that refuses, and says so."""


class LogObserver(Observer):
    """Writes what was left out of an answer to the log, failures with their traceback."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("noodle.fusion")

    def failed(self, request_id: str, stage: str, error: BaseException) -> None:
        self._log.error("fusion stage failed", request_id=request_id, stage=stage, exc_info=error)

    def late(self, request_id: str, stage: str, limit_ms: float) -> None:
        self._log.warning("fusion stage late", request_id=request_id, stage=stage, limit_ms=limit_ms)


class FusionEngine:
    """Decodes what is given, has it read, and fuses what came in time. What is remembered is the keeper's."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, settings: Settings, connect: Callable[[], Encoders], keeper: DeploymentHandle[Any]
    ) -> None:
        """`connect` makes the way to the encoders here: Serve pickles its arguments, again when they have been used."""
        configure_logs(settings.log_level)
        encoders = self._encoders = connect()
        asked = Keeper(keeper)
        self._limits = settings.fusion_limits
        self._decoder = DecoderPool(self._limits)
        self._indexes = KeptIndexesPort(asked, self._indexer, settings.fusion_index_entries)
        self._engine = Engine(
            encoders,
            self._decoder,
            load_calibration(settings.pack),
            KeptSessionsPort(asked),
            self._indexes,
            KeptHeadsPort(asked),
            limit_ms=settings.fusion_max_processing_time_ms,
            threshold=settings.fusion_confidence_threshold,
            cache_bytes=settings.fusion_cache_bytes,
            # A lone engine has read everything itself: asking would only cost time.
            shared=KeptReadingsPort(asked) if settings.fusion_engines > 1 and settings.fusion_cache_bytes else None,
            observer=LogObserver(),
        )
        await asyncio.gather(self._open_ways(MODALITIES), self._decoder.start())
        go_ahead()  # its decoders do not: they compute

    async def _open_ways(self, modalities: Sequence[str]) -> None:
        """The first question for a module's routes takes longer: before the first request, not during it."""
        await asyncio.gather(*(self._encoders.versions([modality]) for modality in modalities))

    async def process(self, request: MultimodalInput, spent_ms: float = 0.0) -> FusionResult:
        """One answer; `spent_ms` as for Engine.process.

        Raises what Engine.process raises, and TooLarge for what is over this deployment's limits.
        """
        items = [(modality, item) for modality, given in request.given() for item in given]
        check(items, self._limits, [(one.modality, one.content) for one in request.candidates])
        return await self._engine.process(request, uuid.uuid4().hex, spent_ms)

    async def add_to_index(self, name: str, entries: Sequence[NewEntry]) -> IndexInfo:
        """Has entries read, and kept in an index. Raises InvalidInput, TooLarge, NotFound, Conflict, LimitReached."""
        return await self._indexes.add(name, entries)

    async def fit_index(self, name: str, queries: Sequence[KnownQuery]) -> IndexInfo:
        """Weighs an index's evidence by queries with known answers. Raises InvalidInput, NotFound, Conflict."""
        return await self._indexes.fit(name, queries)

    def _indexer(self) -> Indexer:
        return Indexer(self._encoders, self._engine.senses, time.perf_counter)


def build_application(
    settings: Settings, connect: Callable[[], Encoders], catalogue: Callable[[], Catalogue] | None = None
) -> serve.Application:
    """The application, to be run under the name "fusion" and without a route: the gateway calls it by its handle.

    `connect` and `catalogue` make the ways to the encoders and to what modules there are.
    """
    # The class stays plain and is wrapped here: so Serve refers to it by name instead of shipping its code, and
    # deploying the same again changes nothing.
    options = serve.deployment(
        name=FusionEngine.__name__,
        num_replicas=settings.fusion_engines,
        # Several are for the death of a node; those that have none of their own yet wait for one.
        max_replicas_per_node=1,
        max_ongoing_requests=ENGINE_ONGOING,
        ray_actor_options={"num_cpus": ENGINE_CPUS},
        graceful_shutdown_timeout_s=5,
    )
    return options(FusionEngine).bind(settings, connect, keeper_deployment(settings, catalogue))
