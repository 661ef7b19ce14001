"""How likely each candidate is to have been read aloud: a short list of them, scored by the decoder.

A candidate's score is its log-likelihood given the clip, less most of that given silence, so that long and rare
sentences are not at a disadvantage (a share of the pointwise mutual information; the shares were chosen on the parts
"fit" and "validation" of the benchmark's spoken prompts). A sentence may be written in several ways ("press 1", "press
one"): its likelihood is their sum.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from noodle_ray.fusion.spelling import likeness, written_forms
from noodle_ray.fusion_models.whisper import Memory, Transcript, Whisper

Values = npt.NDArray[np.float64]
Rows = tuple[tuple[int, ...], ...]

SILENCE_SHARE = 0.8
"""How much of the log-likelihood given silence is taken off."""
ALIKE, OPENING = 6, 4
"""Scored are so many that are most like the transcript, and so many more by how they begin: the transcript of a single
word is often wrong, and the right word still among the first that the decoder thought of."""
OPENING_SCALE = 4.0
"""Nats that a full likeness is worth beside the likelihood of a candidate's first token."""
SCORED_TOKENS = 160
"""Tokens of candidates that are scored for one clip: what fits into a deadline of 200 ms beside the rest."""
LONGEST = 1200
"""Characters of a candidate: what is longer cannot be spoken in half a minute, and is not scored."""
REMEMBERED = 8192
PREPARED_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Scored:
    """Each candidate's score, and the log-likelihood of the best one's tokens."""

    gains: npt.NDArray[np.float32]
    best_log_likelihood: float


class SpokenCandidates:
    """Scores candidates; remembers their tokens and their likelihoods given silence."""

    def __init__(self, whisper: Whisper) -> None:
        self._whisper = whisper
        self._rows: OrderedDict[str, Rows] = OrderedDict()
        self._silent: OrderedDict[str, float] = OrderedDict()
        self._silent_opening = whisper.transcribe(whisper.silence, 0.0).opening

    def score(
        self, memory: Memory, heard: Transcript, candidates: Sequence[str], alike: Values | None = None
    ) -> Scored | None:
        """None where fewer than two of several candidates can be scored, for then there is nothing to compare.

        `alike`: their likeness to the transcript, where it is known. What is not scored is no likelier than the least
        likely that is.
        """
        alike = likeness(heard.text, candidates) if alike is None else alike
        rows = [self._rows_of(text) for text in candidates]
        chosen = shortlist(alike, self._openings(heard, rows), [sum(map(len, forms)) for forms in rows])
        if not chosen:
            return None
        likelihoods = self._likelihoods(memory, [rows[index] for index in chosen])
        gains = likelihoods - SILENCE_SHARE * self._likelihoods_on_silence([candidates[index] for index in chosen])
        scores = np.full(len(candidates), gains.min(), np.float32)
        scores[chosen] = gains
        return Scored(scores, float(likelihoods.max()))

    def prepare(self, texts: Iterable[str]) -> None:
        """Computes ahead what does not depend on a clip, for candidates that will be asked about."""
        for text in texts:
            if 0 < sum(map(len, self._rows_of(text))) <= SCORED_TOKENS:
                self._likelihoods_on_silence([text])

    def _rows_of(self, text: str) -> Rows:
        rows = self._rows.get(text)
        if rows is None:
            forms = written_forms(text) if len(text) <= LONGEST else ()
            tokens = (self._whisper.tokens_of(form) for form in forms)
            rows = self._rows[text] = tuple(row for row in dict.fromkeys(tokens) if row)
            _forget(self._rows)
        return rows

    def _openings(self, heard: Transcript, rows: Sequence[Rows]) -> Values:
        """(candidates,): how much likelier its first token is than given silence, in nats, at the best of its forms."""
        gains = heard.opening - SILENCE_SHARE * self._silent_opening
        return np.array([max((float(gains[row[0]]) for row in forms), default=-np.inf) for forms in rows])

    def _likelihoods(self, memory: Memory, rows: Sequence[Rows]) -> Values:
        distinct = list(dict.fromkeys(row for forms in rows for row in forms))
        known = dict(zip(distinct, self._whisper.log_likelihoods(memory, distinct), strict=True))
        return np.array([np.logaddexp.reduce([known[row] for row in forms]) for forms in rows])

    def _likelihoods_on_silence(self, texts: Sequence[str]) -> Values:
        fresh = list(dict.fromkeys(text for text in texts if text not in self._silent))
        for start in range(0, len(fresh), PREPARED_AT_ONCE):
            some = fresh[start : start + PREPARED_AT_ONCE]
            values = self._likelihoods(self._whisper.silence, [self._rows_of(text) for text in some])
            self._silent.update(zip(some, map(float, values), strict=True))
        result = np.array([self._silent[text] for text in texts])
        _forget(self._silent)
        return result


def shortlist(alike: Values, openings: Values, lengths: Sequence[int]) -> list[int]:
    """Which candidates are scored, as indices in rising order; empty where there is nothing to compare.

    alike: likeness to the transcript; openings: nats by first token; lengths: tokens, 0 for what cannot be scored.
    """
    usable = [index for index, length in enumerate(lengths) if 0 < length <= SCORED_TOKENS]
    by_likeness = sorted(usable, key=lambda index: (-alike[index], index))
    by_opening = sorted(usable, key=lambda index: (-openings[index] - OPENING_SCALE * alike[index], index))
    chosen: list[int] = []
    room = SCORED_TOKENS
    for ranked, count in ((by_likeness, ALIKE), (by_opening, OPENING)):
        limit = len(chosen) + count
        for index in ranked:
            if len(chosen) < limit and index not in chosen and lengths[index] <= room:
                chosen.append(index)
                room -= lengths[index]
    return sorted(chosen) if len(chosen) >= min(2, len(lengths)) else []


def _forget(remembered: OrderedDict[str, Any]) -> None:
    while len(remembered) > REMEMBERED:
        remembered.popitem(last=False)
