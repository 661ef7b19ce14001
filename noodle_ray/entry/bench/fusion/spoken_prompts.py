"""Task 1 of the accuracy benchmark: a recorded prompt, and which of some five hundred texts is read aloud in it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from noodle_ray.entry.bench.fusion.task import Goal, Progress, Setting, Task
from noodle_ray.entry.training import datasets
from noodle_ray.errors import TooLarge
from noodle_ray.fusion.decoding import SAMPLE_RATE_HZ, Samples, decode_audio
from noodle_ray.fusion.fitting import Case, fit_rule
from noodle_ray.fusion.reading import Matrix, Reading
from noodle_ray.fusion.rule import Scores
from noodle_ray.fusion.selective import Answer, answer_of
from noodle_ray.fusion.spelling import spoken_form
from noodle_ray.fusion_models.audio import SpeechEncoder, load_whisper
from noodle_ray.fusion_models.encoders import load_anchor, located
from noodle_ray.fusion_models.packs import load_pack

LIKELIHOOD, SPELLING, MEANING = "audio:likelihood", "audio:spelling", "audio:meaning"
RIVALS = (SPELLING, MEANING)
SHORT_S = 3.0
FIT_PERCENT, VALIDATION_PERCENT = 25, 25
SPLIT = (
    "recorded prompts (asterisk-core-sounds-en) of at most 30 s with speech in them; texts that are spoken alike are "
    "one candidate; by sha256 of that text 25 % fit, 25 % validation, 50 % test, so that no text is in two parts; "
    "every text is a candidate of every case"
)


@dataclass(frozen=True, slots=True)
class Clip:
    """A recorded prompt: `key` is its text as it is spoken, by which texts are merged and divided."""

    name: str
    samples: Samples
    text: str
    key: str

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True)
class Heard:
    """What the encoder made of a clip: each source's scores, which text is right, and the milliseconds of CPU."""

    clip: Clip
    transcript: str
    scores: dict[str, Scores]
    right: int
    cpu_ms: float


def load_clips(cache_dir: Path, progress: Progress) -> list[Clip]:
    """The prompts that hold speech, of at most 30 s."""
    clips = []
    for prompt in datasets.fetch_speech(cache_dir, progress).prompts:
        # In angle brackets stands a tone where nobody speaks.
        if prompt.transcript.startswith("<"):
            continue
        try:
            samples = decode_audio(prompt.path.read_bytes())
        except TooLarge:
            continue
        clips.append(Clip(prompt.name, samples, prompt.transcript, spoken_form(prompt.transcript)))
    return clips


def part_of(key: str) -> str:
    """ "fit", "validation" or "test"."""
    share = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 100
    if share < FIT_PERCENT:
        return "fit"
    return "validation" if share < FIT_PERCENT + VALIDATION_PERCENT else "test"


def candidates_of(clips: Sequence[Clip]) -> dict[str, str]:
    """A text for each key: that of the first clip."""
    found: dict[str, str] = {}
    for clip in clips:
        found.setdefault(clip.key, clip.text)
    return found


def scores_of(reading: Reading, places: Matrix) -> dict[str, Scores]:
    """Each way of scoring the candidates, as a source: the reading's own, and what the transcript means."""
    scores = {f"audio:{kind}": values.astype(np.float64) for kind, values in reading.sources.items()}
    if reading.embedding is not None:
        scores["audio:meaning"] = places.astype(np.float64) @ reading.embedding.astype(np.float64)
    return scores


def listen(
    cache_dir: Path, progress: Progress, wanted: Callable[[Clip], bool] = lambda clip: True, precision: str = "int8"
) -> list[Heard]:
    """Runs the base pack's audio encoder over the wanted clips with all texts as candidates."""
    torch.set_num_threads(1)
    pack = load_pack("base", cache_dir)
    _, source, where = located(pack, "audio")
    sentences = load_anchor(pack)
    encoder = SpeechEncoder(load_whisper(source, precision, **where), sentences, pack.version("audio"))
    clips = load_clips(cache_dir, progress)
    texts = candidates_of(clips)
    keys, candidates = list(texts), tuple(texts.values())
    places = sentences.embed(candidates)
    encoder.prepare(candidates)
    result = []
    for number, clip in enumerate(filter(wanted, clips)):
        if number % 50 == 0:
            progress(f"spoken prompts: clip {number + 1}")
        start = time.thread_time()
        reading = encoder.encode(clip.samples, candidates)
        spent_ms = 1000.0 * (time.thread_time() - start)
        result.append(Heard(clip, reading.seen, scores_of(reading, places), keys.index(clip.key), spent_ms))
    return result


def settings(cache_dir: Path, progress: Progress) -> Iterator[Setting]:
    heard = listen(cache_dir, progress)
    goals = (
        Goal("accuracy_percent", "audio", 98.0),
        Goal("selective_accuracy_percent", "audio", 95.0),
        Goal("coverage_percent", "audio", 85.0),
    )
    yield setting_of("clips up to 3 s", [item for item in heard if item.clip.seconds <= SHORT_S], goals)
    phrases = [item for item in heard if item.clip.seconds <= SHORT_S and " " in item.clip.key]
    yield setting_of("clips up to 3 s of two words or more", phrases, goals)
    yield setting_of("all clips", heard, goals[1:])


def setting_of(name: str, heard: Sequence[Heard], goals: Sequence[Goal]) -> Setting:
    """The cases are the likelihood's; the other sources are rivals.

    On fit and validation data a rule over all three was right less often (95.5 %) than the likelihood alone (96.4 %):
    the transcript has already said its part when it chose the short list.
    """
    parts = {part: _cases(heard, part, LIKELIHOOD) for part in ("fit", "validation", "test")}
    rivals = {(source.partition(":")[2], "audio"): _answers(heard, source) for source in RIVALS}
    clean = [("audio",)] * len(parts["test"])
    return Setting(
        name, parts["fit"], parts["validation"], parts["test"], clean=clean, rivals=rivals, goals=tuple(goals)
    )


def _cases(heard: Sequence[Heard], part: str, source: str) -> list[Case]:
    own = [item for item in heard if part_of(item.clip.key) == part]
    # Where fewer than two candidates can be scored, every one is as likely.
    return [Case({source: item.scores.get(source, np.zeros_like(item.scores[SPELLING]))}, item.right) for item in own]


def _answers(heard: Sequence[Heard], source: str) -> list[Answer]:
    rule = fit_rule(_cases(heard, "fit", source), _cases(heard, "validation", source))
    return [answer_of(rule.posterior(case.scores), case.right) for case in _cases(heard, "test", source)]


TASK = Task("spoken prompts", SPLIT, settings)
