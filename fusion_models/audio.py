"""Speech in the space of sentences: what was said, and how likely each candidate is to have been said."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from noodle_ray.errors import shorten
from noodle_ray.fusion.decoding import SAMPLE_RATE_HZ, Samples
from noodle_ray.fusion.reading import Reading, Vector
from noodle_ray.fusion_models.descriptors import segment_means
from noodle_ray.fusion_models.pretrained import from_pretrained
from noodle_ray.fusion_models.quantised import INT8
from noodle_ray.fusion_models.text import Sentences
from noodle_ray.fusion_models.whisper import Memory, Transcript, Whisper

SCORED_TOKENS = 120
"""Tokens of candidates that are scored for one clip: what fits into a deadline of 200 ms beside the rest."""
REMEMBERED_SILENCES = 4096


def load_whisper(source: Any, precision: str = INT8, device: str = "cpu", **where: Any) -> Whisper:
    """A Whisper model from a directory or a hub id, in a precision of PRECISIONS, on a device as torch names it."""
    model = from_pretrained("WhisperForConditionalGeneration", source, dtype=torch.float32, **where).eval()
    tokenizer = from_pretrained("AutoTokenizer", source, **where)
    generation = from_pretrained("GenerationConfig", source, **where)
    with torch.inference_mode():
        return Whisper(model, tokenizer, generation, precision, device)


class SpeechEncoder:
    """Reads speech.

    A candidate's score is its log-likelihood given the clip minus that given silence, so that long and rare sentences
    are not at a disadvantage (pointwise mutual information). It presumes that a candidate was read aloud: the reading
    also says how much less likely the best candidate is than the free transcript. Its features are the encoder's
    states, averaged over equal stretches of the clip.
    """

    def __init__(self, whisper: Whisper, sentences: Sentences, version: str) -> None:
        self._whisper, self._sentences, self._version = whisper, sentences, version
        self._on_silence: OrderedDict[tuple[int, ...], float] = OrderedDict()

    def encode(self, content: Samples, candidates: tuple[str, ...] = ()) -> Reading:
        with torch.inference_mode():
            memory = self._whisper.listen(content)
            heard = self._whisper.transcribe(memory, len(content) / SAMPLE_RATE_HZ)
            scores, unlikeliness = self._score(memory, heard, candidates)
        embedding = self._sentences.embed([heard.text or "silence"])[0]
        seen = shorten(heard.text) or "nothing"
        features = segment_means(memory.states.float().cpu().numpy())
        return Reading(self._version, seen, heard.certainty, embedding, scores, unlikeliness, features)

    def features(self, samples: Samples) -> Vector:
        """A reading's features alone, without a transcript."""
        with torch.inference_mode():
            return segment_means(self._whisper.listen(samples).states.float().cpu().numpy())

    def transcribe(self, samples: Samples) -> Transcript:
        with torch.inference_mode():
            return self._whisper.transcribe(self._whisper.listen(samples), len(samples) / SAMPLE_RATE_HZ)

    def _score(
        self, memory: Memory, heard: Transcript, candidates: tuple[str, ...]
    ) -> tuple[npt.NDArray[np.float32] | None, float | None]:
        rows = [self._whisper.tokens_of(candidate) for candidate in candidates]
        chosen = shortlist(heard.text, candidates, [len(row) for row in rows])
        if not chosen:
            return None, None
        likelihoods = self._whisper.log_likelihoods(memory, [rows[index] for index in chosen])
        gains = likelihoods - self._likelihoods_on_silence([rows[index] for index in chosen])
        # What was not shortlisted is no likelier than the least likely that was.
        scores = np.full(len(candidates), gains.min(), np.float32)
        scores[chosen] = gains
        return scores, float(heard.log_likelihood - likelihoods.max())

    def _likelihoods_on_silence(self, rows: list[tuple[int, ...]]) -> npt.NDArray[np.float64]:
        fresh = list(dict.fromkeys(row for row in rows if row not in self._on_silence))
        for row, value in zip(fresh, self._whisper.log_likelihoods(self._whisper.silence, fresh), strict=True):
            self._on_silence[row] = float(value)
        result = np.array([self._on_silence[row] for row in rows])
        while len(self._on_silence) > REMEMBERED_SILENCES:
            self._on_silence.popitem(last=False)
        return result


def shortlist(heard: str, candidates: Sequence[str], lengths: Sequence[int]) -> list[int]:
    """Which candidates are scored: those that are spelt most like the transcript, as many as there is time for.

    Empty where fewer than two of several candidates would be, for then there would be nothing to compare.
    """
    likeness = [SequenceMatcher(None, heard.lower(), candidate.lower()).ratio() for candidate in candidates]
    chosen: list[int] = []
    tokens = 0
    for index in sorted(range(len(candidates)), key=lambda index: (-likeness[index], index)):
        if tokens + lengths[index] <= SCORED_TOKENS:
            chosen.append(index)
            tokens += lengths[index]
    return sorted(chosen) if len(chosen) >= min(2, len(candidates)) else []
