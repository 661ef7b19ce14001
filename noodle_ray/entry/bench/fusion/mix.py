"""The requests of the latency benchmark: real speech, photographs, functions and sentences, no two of them alike.

A number makes a request, always the same one, so that every system is asked the same. Speech: Debian's recorded
prompts of half a second to three. Photographs: scikit-image's, a part of them 384 pixels high, as JPEG. Code:
functions of the standard library with at most 40 lines. Texts: what other prompts say. Candidates: one of eight lists
of six (captions, prompts and what functions do), which recur as the labels of an application do.
"""

from __future__ import annotations

import base64
import io
import json
import random
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from noodle_ray.entry.training.datasets import Function, Prompt, fetch_speech, photographs, python_functions
from noodle_ray.fusion.modality import FIELD_OF

SHORTEST_S, LONGEST_S = 0.5, 3.0
LINES = 40
SIDE = 384
QUALITY = 85
LISTS = 8
CHANGED_SAMPLES = 16


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording: (samples,) 16 bits each, and how many a second."""

    samples: npt.NDArray[np.int16]
    rate: int


@dataclass(frozen=True, slots=True)
class Mix:
    """What requests are made of."""

    clips: Sequence[Clip]
    pictures: Sequence[Image.Image]
    functions: Sequence[str]
    texts: Sequence[str]
    lists: Sequence[tuple[str, ...]]

    def fields(self, number: int, modalities: Sequence[str]) -> dict[str, Any]:
        """The request of this number as JSON has it: media in base64."""
        chance = random.Random(number)  # noqa: S311  (no secret)
        makers = {"text": self._text, "audio": self._audio, "vision": self._picture, "code": self._code}
        # Every modality is made, so that it does not depend on which others are asked for.
        made = {modality: make(number, random.Random(chance.random())) for modality, make in makers.items()}  # noqa: S311
        given = {FIELD_OF[modality]: made[modality] for modality in modalities}
        return {**given, "candidates": self.lists[number % len(self.lists)]}

    def body(self, number: int, modalities: Sequence[str]) -> bytes:
        return json.dumps(self.fields(number, modalities)).encode()

    def _text(self, number: int, chance: random.Random) -> str:
        return f"{chance.choice(self.texts)} ({number})"

    def _code(self, number: int, chance: random.Random) -> str:
        return f"{chance.choice(self.functions)}\n# case {number}\n"

    def _audio(self, number: int, chance: random.Random) -> str:
        """A clip with a few samples changed by one step: unheard, but another clip."""
        clip = chance.choice(self.clips)
        samples = clip.samples.copy()
        for _ in range(CHANGED_SAMPLES):
            samples[chance.randrange(len(samples))] ^= 1
        return _base64(_wav(samples, clip.rate))

    def _picture(self, number: int, chance: random.Random) -> str:
        """A square part of a photograph, wherever it fits, a little brighter or darker."""
        picture = chance.choice(self.pictures)
        left, top = (chance.randint(0, length - SIDE) for length in picture.size)
        part = picture.crop((left, top, left + SIDE, top + SIDE))
        gain = chance.uniform(0.9, 1.1)
        file = io.BytesIO()
        part.point(lambda value: value * gain).save(file, "JPEG", quality=QUALITY)
        return _base64(file.getvalue())


def load_mix(cache_dir: Path) -> Mix:
    """The mix from real data. Raises Unavailable where speech or photographs are not to be had."""
    prompts = fetch_speech(cache_dir).prompts
    functions = python_functions()
    pictures = [_at_least(Image.open(photograph.path).convert("RGB")) for photograph in photographs()]
    return Mix(
        clips=[clip for prompt in prompts if (clip := _clip(prompt)) is not None],
        pictures=pictures,
        functions=[function.code for function in functions if len(function.code.splitlines()) <= LINES],
        texts=[prompt.transcript for prompt in prompts if len(prompt.transcript.split()) >= 5],
        lists=_lists(prompts, functions),
    )


def _clip(prompt: Prompt) -> Clip | None:
    """The recording, where it is neither too short nor too long."""
    with wave.open(str(prompt.path)) as file:
        seconds = file.getnframes() / file.getframerate()
        if not SHORTEST_S <= seconds <= LONGEST_S:
            return None
        return Clip(np.frombuffer(file.readframes(file.getnframes()), np.int16), file.getframerate())


def _wav(samples: npt.NDArray[np.int16], rate: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(samples.tobytes())
    return file.getvalue()


def _at_least(picture: Image.Image) -> Image.Image:
    scale = SIDE / min(picture.size)
    return picture.resize((max(SIDE, round(picture.width * scale)), max(SIDE, round(picture.height * scale))))


def _lists(prompts: Sequence[Prompt], functions: Sequence[Function]) -> list[tuple[str, ...]]:
    chance = random.Random(0)  # noqa: S311
    captions = [photograph.caption for photograph in photographs()]
    said = sorted({prompt.transcript for prompt in prompts if len(prompt.transcript) <= 60})
    done = sorted({function.summary for function in functions if len(function.summary) <= 80})
    return [tuple(text for texts in (captions, said, done) for text in chance.sample(texts, 2)) for _ in range(LISTS)]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
