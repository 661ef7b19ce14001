"""One modality's encoder as it is called: many callers at once, in batches, each with its own time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import structlog

from noodle_ray.errors import NoodleError
from noodle_ray.fusion.decoding import SAMPLE_RATE_HZ
from noodle_ray.fusion.ports import Placed
from noodle_ray.fusion.reading import Matrix, Reading
from noodle_ray.fusion_models.batching import Batcher
from noodle_ray.fusion_models.encoders import ModalityEncoder, load_encoder
from noodle_ray.fusion_models.packs import Pack, load_pack
from noodle_ray.settings import read_settings

log = structlog.get_logger("noodle.fusion")

BATCH = 16
"""Orders that one encoder reads together."""

# A network's first call is several times slower than the later ones: each encoder makes it before it is asked.
WARM_UP: Mapping[str, Any] = {
    "text": "ready",
    "code": "def ready(): pass",
    "vision": np.zeros((256, 256, 3), np.uint8),
    "audio": np.zeros(SAMPLE_RATE_HZ, np.float32),
}
TEXTS = ("ready", "not ready")


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """Which encoder, and how it is run: what the file beside an encoder module's code says."""

    modality: str
    pack: str
    weights: str
    precision: str
    device: str

    @classmethod
    def read(cls, path: Path) -> EncoderConfig:
        return cls(**json.loads(path.read_text()))

    def text(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def set_up_torch() -> None:
    """For a process that has an encoder: one thread, and convolutions that are exact on a GPU, too.

    TF32 was hardly quicker there, and saw other things in pictures.
    """
    import torch

    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False


def load_warm(pack: Pack, modality: str, precision: str, device: str) -> ModalityEncoder:
    """The pack's encoder of that modality, when it has read something for the first time."""
    encoder = load_encoder(pack, modality, precision, device)
    encoder.encode(WARM_UP[modality], TEXTS)
    return encoder


Order = tuple[tuple[Any, ...], tuple[str, ...]]
"""Items, and the candidates' texts for an encoder that scores them."""


class Processor:
    """Runs one encoder in a thread of its own: the event loop stays free, and torch never competes with itself.

    Answers are values, errors of ours too: raised, they would count as the failure of the module that this is.
    """

    def __init__(self, config: EncoderConfig) -> None:
        set_up_torch()
        pack = load_pack(config.pack, read_settings().cache_dir)
        self._modality, self._space = config.modality, pack.version("text")
        self._encoder = load_warm(pack, config.modality, config.precision, config.device)
        self._scores_texts: bool = getattr(self._encoder, "scores_texts", False)
        self._orders: Batcher[Order, tuple[Reading, ...]] = Batcher(config.modality, self._read_all, BATCH)

    async def read(
        self, items: tuple[Any, ...], texts: tuple[str, ...], within_s: float
    ) -> tuple[Reading, ...] | NoodleError:
        """Reads one request's items. An error of ours comes as an answer: DeadlineExceeded, InvalidInput."""
        try:
            return await self._orders.run((items, texts), within_s)
        except NoodleError as error:
            return error

    def _read_all(self, orders: Sequence[Order]) -> Sequence[tuple[Reading, ...] | Exception]:
        many = getattr(self._encoder, "encode_many", None)
        if many is not None and len(orders) > 1 and not self._scores_texts:
            try:
                return self._divided(orders, many([item for items, _ in orders for item in items]))
            except Exception as error:  # one of them is at fault: each is read alone, and that one is told
                log.info("batch not read", modality=self._modality, error=type(error).__name__)
        return [self._read_one(order) for order in orders]

    def _divided(self, orders: Sequence[Order], readings: Sequence[Reading]) -> list[tuple[Reading, ...]]:
        rest = iter(readings)
        return [tuple(self._placed(next(rest)) for _ in items) for items, _ in orders]

    def _read_one(self, order: Order) -> tuple[Reading, ...] | Exception:
        items, texts = order
        try:
            return tuple(self._placed(self._encoder.encode(item, texts)) for item in items)
        except Exception as error:  # one request's content is no other's fault
            return error

    def _placed(self, reading: Reading) -> Reading:
        space = self._space if reading.embedding is not None else ""
        return replace(reading, space=space, needs_texts=self._scores_texts)

    def is_well(self) -> bool:
        """The health check of the module that this is: the encoder reads something."""
        self._encoder.encode(WARM_UP[self._modality], TEXTS)
        return True


class TextModalityProcessor(Processor):
    """Reads texts, and places candidates in the anchor space."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self._texts: Batcher[tuple[str, ...], Matrix] = Batcher("candidates", self._place_all, BATCH)

    async def place(self, texts: tuple[str, ...], within_s: float) -> Placed | NoodleError:
        """Where the texts lie in the anchor's space."""
        try:
            return Placed(self._space, await self._texts.run(texts, within_s))
        except NoodleError as error:
            return error

    def _place_all(self, orders: Sequence[tuple[str, ...]]) -> list[Matrix | Exception]:
        rows = cast(Any, self._encoder).embed([text for texts in orders for text in texts])
        ends = np.cumsum([len(texts) for texts in orders])
        return list(np.split(rows, ends[:-1]))


class AudioModalityProcessor(Processor):
    """Reads speech: Samples."""


class VisionModalityProcessor(Processor):
    """Reads pictures: Pixels."""


class CodeModalityProcessor(Processor):
    """Reads code."""


PROCESSORS: Mapping[str, type[Processor]] = {
    "text": TextModalityProcessor,
    "audio": AudioModalityProcessor,
    "vision": VisionModalityProcessor,
    "code": CodeModalityProcessor,
}
