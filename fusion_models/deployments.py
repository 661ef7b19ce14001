"""The fusion service on Ray Serve: a deployment for each modality's encoder, and one that fuses."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import structlog
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from noodle_ray.errors import Unavailable
from noodle_ray.fusion.calibration import load_calibration
from noodle_ray.fusion.decoding import SAMPLE_RATE_HZ
from noodle_ray.fusion.engine import Encoder, Engine, Observer
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.fusion.modality import MODALITIES
from noodle_ray.fusion.reading import Matrix, Reading
from noodle_ray.fusion.result import FusionResult
from noodle_ray.fusion_models.encoders import load_encoder
from noodle_ray.fusion_models.packs import load_pack
from noodle_ray.settings import Settings

if TYPE_CHECKING:
    from noodle_ray.fusion_models.text import Sentences

Result = TypeVar("Result")

# Serve counts these against the node's CPUs for as long as a replica lives, busy or not. An encoder runs one thread
# for some milliseconds a request and sleeps otherwise: small shares leave the node's CPUs to the work placed on it.
ENCODER_CPUS, ENGINE_CPUS = 0.2, 0.1
ENCODER_ONGOING, ENGINE_ONGOING = 16, 64
"""Requests inside one replica at a time: enough that the next one is there when the encoder is free."""
DECODER_THREADS = 2

# A network's first call is several times slower than the later ones: each replica makes it before it takes requests.
WARM_UP: Mapping[str, Any] = {
    "text": "ready",
    "code": "def ready(): pass",
    "vision": np.zeros((256, 256, 3), np.uint8),
    "audio": np.zeros(SAMPLE_RATE_HZ, np.float32),
}


class _Processor:
    """Runs one encoder in a thread of its own: the event loop stays free, and torch never competes with itself."""

    modality = ""

    def __init__(self, settings: Settings) -> None:
        import torch  # here, for the engine has no use for it and would start seconds later

        torch.set_num_threads(1)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=self.modality)
        self._encoder = load_encoder(load_pack(settings.pack, settings.cache_dir), self.modality)
        self._encoder.encode(WARM_UP[self.modality], ("ready", "not ready"))

    async def encode(self, content: Any, candidates: tuple[str, ...]) -> Reading:
        """Reads one input. `candidates` are for an encoder that scores them on its own."""
        return await self._run(self._encoder.encode, content, candidates)

    async def _run(self, work: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)


# The classes stay plain and are wrapped in `build_application`: so Serve refers to them by name instead of shipping
# their code, and deploying the same again changes nothing.


class TextModalityProcessor(_Processor):
    """Reads texts, and places candidates in the anchor space."""

    modality = "text"

    async def embed(self, texts: tuple[str, ...]) -> Matrix:
        return await self._run(cast("Sentences", self._encoder).embed, texts)


class AudioModalityProcessor(_Processor):
    """Reads speech: Samples."""

    modality = "audio"


class VisionModalityProcessor(_Processor):
    """Reads pictures: Pixels."""

    modality = "vision"


class CodeModalityProcessor(_Processor):
    """Reads code."""

    modality = "code"


PROCESSORS: tuple[type[_Processor], ...] = (
    TextModalityProcessor,
    AudioModalityProcessor,
    VisionModalityProcessor,
    CodeModalityProcessor,
)


class RemoteEncoder:
    """The ports Encoder and CandidateEncoder over a deployment. Raises Unavailable where no replica answers."""

    def __init__(self, handle: DeploymentHandle[Any], modality: str) -> None:
        self._handle, self._modality = handle, modality

    async def encode(self, content: Any, candidates: tuple[str, ...]) -> Reading:
        return cast(Reading, await self._ask("encode", content, candidates))

    async def embed(self, texts: tuple[str, ...]) -> Matrix:
        return cast(Matrix, await self._ask("embed", texts))

    async def _ask(self, method: str, *arguments: Any) -> Any:
        response = getattr(self._handle, method).remote(*arguments)
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()  # nobody waits for it any more: it leaves the replica's queue
            raise
        except RayTaskError as error:
            raise error.cause from error
        except (RayError, RayServeException) as error:
            raise Unavailable(f"the {self._modality} encoder does not answer ({type(error).__name__})") from error


class NoEncoder:
    """Stands where the pack has no encoder for a modality."""

    def __init__(self, pack: str, modality: str) -> None:
        self._problem = f"the pack {pack} has no {modality} encoder"

    async def encode(self, content: Any, candidates: tuple[str, ...]) -> Reading:
        raise Unavailable(self._problem)


class LogObserver(Observer):
    """Writes what was left out of an answer to the log, failures with their traceback."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("noodle.fusion")

    def failed(self, request_id: str, stage: str, error: BaseException) -> None:
        self._log.error("fusion stage failed", request_id=request_id, stage=stage, exc_info=error)

    def late(self, request_id: str, stage: str, limit_ms: float) -> None:
        self._log.warning("fusion stage late", request_id=request_id, stage=stage, limit_ms=limit_ms)


class FusionEngine:
    """Decodes what is given, asks the encoders, and fuses what came in time."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, settings: Settings, handles: dict[str, DeploymentHandle[Any]]
    ) -> None:
        await self._open_ways(handles)
        encoders: dict[str, Encoder] = {
            modality: RemoteEncoder(handles[modality], modality)
            if modality in handles
            else NoEncoder(settings.pack, modality)
            for modality in MODALITIES
        }
        self._engine = Engine(
            encoders,
            RemoteEncoder(handles["text"], "text"),
            load_calibration(settings.pack),
            limit_ms=settings.fusion_max_processing_time_ms,
            threshold=settings.fusion_confidence_threshold,
            pool=ThreadPoolExecutor(DECODER_THREADS, thread_name_prefix="decoder"),
            observer=LogObserver(),
        )

    async def _open_ways(self, handles: dict[str, DeploymentHandle[Any]]) -> None:
        """The first call to a deployment finds its replicas and connects: before the first request, not during it."""
        calls = [
            handle.encode.remote(WARM_UP[modality], ("ready", "not ready")) for modality, handle in handles.items()
        ]
        await asyncio.gather(*calls)

    async def process(self, request: MultimodalInput) -> FusionResult:
        """One answer. Raises InvalidInput, TooLarge, DeadlineExceeded or Unavailable."""
        return await self._engine.process(request, uuid.uuid4().hex)


def build_application(settings: Settings) -> serve.Application:
    """The application, to be run under the name "fusion" and without a route: the gateway calls it by its handle.

    Checks the pack first, so that a damaged one is an error here and not in a replica. Raises CorruptData, NotFound.
    """
    pack = load_pack(settings.pack, settings.cache_dir)
    handles = {
        processor.modality: _deployed(processor, ENCODER_CPUS, ENCODER_ONGOING).bind(settings)
        for processor in PROCESSORS
        if processor.modality in pack.modalities
    }
    return _deployed(FusionEngine, ENGINE_CPUS, ENGINE_ONGOING).bind(settings, handles)


def _deployed(kind: type[Any], cpus: float, ongoing: int) -> serve.Deployment:
    options = serve.deployment(
        name=kind.__name__,
        num_replicas=1,
        max_ongoing_requests=ongoing,
        ray_actor_options={"num_cpus": cpus},
        # An encoder is loaded in seconds; a replica that is asked to go finishes what it has begun.
        graceful_shutdown_timeout_s=5,
    )
    return options(kind)
