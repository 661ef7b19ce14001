"""Task 4: the name of what is drawn, in a style that was never trained on, alone and with a poor text beside it.

The picture is an emoji of OpenMoji; the text is one keyword of it ("partial"), or its name with letters and a word
missing ("noisy"). Weights and temperatures come from other emoji in another style (Fluent), which was not trained on
either. Emoji whose pictures were trained on in other styles ("seen names") and emoji of which no picture ever was
("unseen names") are apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np

from noodle_ray.entry.bench.fusion.task import Goal, Progress, Setting, Task
from noodle_ray.entry.emoji import TEST, TRAINING, VALIDATION, Emoji, EmojiSet, fetch_emoji
from noodle_ray.fusion.decoding import decode_image
from noodle_ray.fusion.fitting import Case, fit_rule
from noodle_ray.fusion.reading import Matrix
from noodle_ray.fusion.selective import Answer, answer_of
from noodle_ray.fusion_models.encoders import load_anchor, load_encoder
from noodle_ray.fusion_models.fetch import fetch_base
from noodle_ray.fusion_models.packs import load_pack
from noodle_ray.fusion_models.text import Sentences
from noodle_ray.fusion_models.vision import ClassMixtureEncoder, PictureEncoder

SEED = 7
CANDIDATES = 100
VALIDATION_STYLE, TEST_STYLE = "fluent", "openmoji"
LETTERS_LOST = 0.25
BATCH = 16
RIVAL = "ConSE"

SEEN, UNSEEN = "seen names", "unseen names"
FIT, CHECK, FINAL = "fit", "validation", "test"


@dataclass(frozen=True, slots=True)
class Item:
    """One emoji in one style, by both encoders: unit vectors in the joint space."""

    emoji: Emoji
    ours: Matrix
    rival: Matrix


def kind_of(emoji: Emoji) -> str:
    return SEEN if emoji.part == TRAINING else UNSEEN


def share_of(emoji: Emoji) -> str:
    """Which emoji the rule is fitted on, chosen with and tested with: by hash, the parts have no emoji in common."""
    if emoji.part == TEST:
        return FINAL
    place = hashlib.sha256(f"{SEED}:share:{emoji.character}".encode()).digest()[0] / 256
    if emoji.part == VALIDATION:
        return FIT if place < 0.6 else CHECK
    return FINAL if place < 0.5 else FIT if place < 0.8 else CHECK


def partial_text(emoji: Emoji, random: Random) -> str:
    """One of its keywords that is not a word of the name; a word of the name where there is none."""
    words = emoji.name.lower().split()
    return random.choice([keyword for keyword in emoji.keywords if keyword not in words] or words)


def noisy_text(emoji: Emoji, random: Random) -> str:
    """The name without a quarter of its letters and, where it has three words or more, without one of these."""
    words = emoji.name.lower().split()
    if len(words) >= 3:
        words.pop(random.randrange(len(words)))
    kept = "".join(letter for letter in " ".join(words) if letter == " " or random.random() >= LETTERS_LOST)
    return " ".join(kept.split()) or emoji.name[:1]


TEXTS: dict[str, Callable[[Emoji, Random], str]] = {"partial": partial_text, "noisy": noisy_text}
