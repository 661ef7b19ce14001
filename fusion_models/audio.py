"""Speech in the space of sentences: what was said, and how likely each candidate is to have been said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from noodle_ray.errors import shorten
from noodle_ray.fusion.decoding import SAMPLE_RATE_HZ, Samples
from noodle_ray.fusion.reading import Reading, Vector
from noodle_ray.fusion.spelling import likeness
from noodle_ray.fusion_models.descriptors import segment_means
from noodle_ray.fusion_models.pretrained import from_pretrained
from noodle_ray.fusion_models.quantised import INT8
from noodle_ray.fusion_models.spoken_candidates import SpokenCandidates
from noodle_ray.fusion_models.text import Sentences
from noodle_ray.fusion_models.whisper import Memory, Transcript, Whisper
from noodle_ray.fusion_models.whisper_files import read_whisper

LIKELIHOOD, SPELLING = "likelihood", "spelling"
"""The kinds of scores in a reading's `sources`; what the transcript means is compared by its embedding."""


def load_whisper(source: Any, precision: str = INT8, device: str = "cpu", **where: Any) -> Whisper:
    """A Whisper model from a directory or a hub id, in a precision of PRECISIONS, on a device as torch names it."""
    model, tokenizer, generation = read_whisper(Path(source)) or _with_transformers(source, where)
    with torch.inference_mode():
        return Whisper(model, tokenizer, generation, precision, device)


def _with_transformers(source: Any, where: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    model = from_pretrained("WhisperForConditionalGeneration", source, dtype=torch.float32, **where).eval()
    tokenizer = from_pretrained("AutoTokenizer", source, **where)
    return model, tokenizer, from_pretrained("GenerationConfig", source, **where)


class SpeechEncoder:
    """Reads speech.

    Candidates are scored by how likely they are to have been read aloud, and by how like the transcript they are. The
    first presumes that one of them was: the reading also says how much less likely the best of them is than the free
    transcript. Its features are the encoder's states, averaged over equal stretches of the clip.
    """

    scores_texts = True

    def __init__(self, whisper: Whisper, sentences: Sentences, version: str) -> None:
        self._whisper, self._sentences, self._version = whisper, sentences, version
        with torch.inference_mode():
            self._candidates = SpokenCandidates(whisper)

    def encode(self, content: Samples, candidates: tuple[str, ...] = ()) -> Reading:
        with torch.inference_mode():
            memory = self._whisper.listen(content)
            heard = self._whisper.transcribe(memory, len(content) / SAMPLE_RATE_HZ)
            scores, unlikeliness, sources = self._score(memory, heard, candidates)
        embedding = self._sentences.embed([heard.text or "silence"])[0]
        seen = shorten(heard.text) or "nothing"
        return Reading(
            self._version,
            seen,
            heard.certainty,
            embedding,
            scores,
            unlikeliness,
            segment_means(memory.states.float().cpu().numpy()),
            sources,
            transcript=heard.text,
        )

    def features(self, content: Samples) -> Vector:
        """A reading's features alone, without a transcript."""
        with torch.inference_mode():
            return segment_means(self._whisper.listen(content).states.float().cpu().numpy())

    def prepare(self, candidates: Iterable[str]) -> None:
        """Makes the first question about these candidates as quick as later ones. Some milliseconds each."""
        with torch.inference_mode():
            self._candidates.prepare(candidates)

    def transcribe(self, samples: Samples) -> Transcript:
        with torch.inference_mode():
            return self._whisper.transcribe(self._whisper.listen(samples), len(samples) / SAMPLE_RATE_HZ)

    def _score(
        self, memory: Memory, heard: Transcript, candidates: tuple[str, ...]
    ) -> tuple[Vector | None, float | None, dict[str, Vector]]:
        if not candidates:
            return None, None, {}
        alike = likeness(heard.text, candidates)
        sources = {SPELLING: alike.astype(np.float32)}
        scored = self._candidates.score(memory, heard, candidates, alike)
        if scored is None:
            return None, None, sources
        sources[LIKELIHOOD] = scored.gains
        return scored.gains, heard.log_likelihood - scored.best_log_likelihood, sources
