"""The same encoders without noodle-ray around them: each with a thread of its own, as rivals in one process have it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from noodle_ray.fusion.calibration import Calibration, load_calibration
from noodle_ray.fusion.candidate_cache import CandidateCache, stacked
from noodle_ray.fusion.decoding import decode_audio, decode_image
from noodle_ray.fusion.fusing import evidence
from noodle_ray.fusion.limits import CACHED_CANDIDATES
from noodle_ray.fusion.modality import FIELD_OF
from noodle_ray.fusion.reading import Matrix, Reading
from noodle_ray.fusion.rule import combined
from noodle_ray.fusion_models.encoders import ModalityEncoder, load_encoder
from noodle_ray.fusion_models.packs import Pack, load_pack
from noodle_ray.fusion_models.text import Sentences
from noodle_ray.settings import read_settings

ONLY = "1"
"""There is one version of each encoder here."""
Question = Mapping[str, Any]
"""The fields of a request as JSON has them."""


def decoded(modality: str, content: str) -> Any:
    """What the encoder takes: base64 into pixels or samples, text as it is."""
    if modality == "vision":
        return decode_image(base64.b64decode(content))
    if modality == "audio":
        return decode_audio(base64.b64decode(content))
    return content


def given(question: Question) -> dict[str, str]:
    return {modality: question[field] for modality, field in FIELD_OF.items() if question.get(field)}


def fused(
    readings: Mapping[str, Reading], candidates: tuple[str, ...], rows: Matrix, calibration: Calibration
) -> dict[str, Any]:
    """The answer as ours has it, as far as the benchmark looks at it: the candidates with their probabilities."""
    evidences = {name: evidence(name, reading, rows, calibration) for name, reading in readings.items()}
    usable = {name: values for name, values in evidences.items() if values is not None}
    probabilities = combined(calibration.subsets, usable)
    order = np.argsort(-probabilities, kind="stable")
    ranked = [{"candidate": candidates[index], "probability": float(probabilities[index])} for index in order]
    return {"candidates": ranked, "confidence": ranked[0]["probability"], "modalities_used": list(readings)}


class CandidateRows:
    """The candidates' embeddings, remembered as the engine remembers them. For one thread."""

    def __init__(self, model: Sentences) -> None:
        self._model, self._cache = model, CandidateCache(CACHED_CANDIDATES)

    def __call__(self, candidates: tuple[str, ...]) -> Matrix:
        if missing := self._cache.missing(ONLY, candidates):
            self._cache.put(ONLY, ONLY, dict(zip(missing, self._model.embed(missing), strict=True)))
        return stacked(candidates, self._cache.known(ONLY, candidates))


class Encoders:
    """All of a pack's encoders in this process. `answer` may be called by several threads at once.

    Each encoder works in a thread of its own, for tokenizers cannot be shared between threads, and with one thread of
    torch's, for four encoders with two each get in each other's way on few cores.
    """

    def __init__(self, cache_dir: Path, pack: str) -> None:
        torch.set_num_threads(1)
        found = load_pack(pack, cache_dir)
        self._calibration = load_calibration(pack)
        self._encoders = {name: encoder_as_set(found, name) for name in found.modalities}
        self._threads = {name: _one_thread(name) for name in found.modalities}
        self._rows = CandidateRows(cast(Sentences, self._encoders["text"]))

    def answer(self, question: Question) -> dict[str, Any]:
        candidates = tuple(question["candidates"])
        readings = {
            modality: self._threads[modality].submit(self._read, modality, content, candidates)
            for modality, content in given(question).items()
        }
        rows = self._threads["text"].submit(self._rows, candidates)
        come = {modality: reading.result() for modality, reading in readings.items()}
        return fused(come, candidates, rows.result(), self._calibration)

    def _read(self, modality: str, content: str, candidates: tuple[str, ...]) -> Reading:
        return self._encoders[modality].encode(decoded(modality, content), candidates)


def encoder_as_set(pack: Pack, modality: str) -> ModalityEncoder:
    """In the precision and on the device that ours are set to: whoever is compared computes alike."""
    settings = read_settings()
    return load_encoder(pack, modality, settings.fusion_precision, settings.fusion_device)


def _one_thread(name: str) -> ThreadPoolExecutor:
    """Torch's setting is a thread's own: each thread that computes must make it."""
    return ThreadPoolExecutor(1, name, initializer=torch.set_num_threads, initargs=(1,))
