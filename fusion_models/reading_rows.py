"""Encodes the rows that a head is taught by, and remembers each reading on disk: a second run encodes only what is new.

`<cache_dir>/readings/<modality>/<encoder>/<digest>.safetensors`; the folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from noodle_ray.fusion.head import PARTS
from noodle_ray.fusion.reading import Reading
from noodle_ray.fusion.training_rows import Content, Example
from noodle_ray.fusion_models.descriptors import LAYOUT
from noodle_ray.fusion_models.encoders import ModalityEncoder, load_encoder
from noodle_ray.fusion_models.files import sha256_of
from noodle_ray.fusion_models.fitting_layers import one_thread
from noodle_ray.fusion_models.packs import Pack
from noodle_ray.fusion_models.train import Shown

Tick = Callable[[], None]


class RowReader:
    """Reads contents with a pack's encoders, each of which is loaded when the first content is new to it."""

    def __init__(self, pack: Pack, cache_dir: Path) -> None:
        self._pack, self._folder = pack, cache_dir / "readings"
        self._encoders: dict[str, ModalityEncoder] = {}

    def read_all(self, examples: Sequence[Example], tick: Tick = lambda: None) -> list[Shown]:
        """The examples as the encoders read them, in their order; `tick` is called after each."""
        result = []
        with one_thread():  # so that a reading does not depend, in its last digits, on how many there are
            for example in examples:
                readings = {modality: self.read(modality, content) for modality, content in example.contents.items()}
                result.append(Shown(readings, example.label))
                tick()
        return result

    def read(self, modality: str, content: Content) -> Reading:
        """Raises NotFound where the pack has no encoder for the modality."""
        path = self._place(modality, content)
        known = _recalled(path)
        if known is None:
            known = self._encoder(modality).encode(content.decoded(modality))
            _remember(path, known)
        return known

    def _place(self, modality: str, content: Content) -> Path:
        encoder = f"{LAYOUT}/{self._pack.version(modality)}/{_shipped()}"
        folder = hashlib.sha256(encoder.encode()).hexdigest()[:16]
        return self._folder / modality / folder / content.digest[:2] / f"{content.digest}.safetensors"

    def _encoder(self, modality: str) -> ModalityEncoder:
        if modality not in self._encoders:
            self._encoders[modality] = load_encoder(self._pack, modality)
        return self._encoders[modality]


@cache
def _shipped() -> str:
    """The heads that come with noodle-ray: encoders may use them, and then read otherwise than with the pack alone."""
    files = sorted((Path(__file__).parent / "heads").glob("*.safetensors"))
    return " ".join(f"{path.stem}={sha256_of(path)}" for path in files)


def _recalled(path: Path) -> Reading | None:
    try:
        with safe_open(path, "np") as file:
            parts: dict[str, Any] = {part: file.get_tensor(part) for part in file.keys()}  # noqa: SIM118
            facts = file.metadata()
    except (OSError, SafetensorError):  # never read, or the file is damaged: then it is read again
        return None
    return Reading(
        facts["encoder"], "", float(facts["certainty"]), parts.get("embedding"), features=parts.get("features")
    )


def _remember(path: Path, reading: Reading) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Any] = {
        part: np.ascontiguousarray(vector) for part in PARTS if (vector := getattr(reading, part)) is not None
    }
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(parts, draft, {"encoder": reading.encoder, "certainty": repr(reading.certainty)})
    draft.replace(path)
