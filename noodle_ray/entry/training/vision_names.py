"""Rebuilds the shipped head for names of pictures: views of the emoji that may be trained on, their names, the fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor

from noodle_ray.entry.training.emoji import SEED, STYLES, TRAINING, Emoji, EmojiSet, fetch_emoji
from noodle_ray.fusion.decoding import decode_image
from noodle_ray.fusion_models.encoders import load_anchor
from noodle_ray.fusion_models.fetch import fetch_base
from noodle_ray.fusion_models.files import sha256_of
from noodle_ray.fusion_models.names_head import HEAD, NamesHead
from noodle_ray.fusion_models.packs import BASE, load_pack
from noodle_ray.fusion_models.picture_views import view
from noodle_ray.fusion_models.pictures import PictureNetwork, normalised, prepared
from noodle_ray.fusion_models.text import Sentences
from noodle_ray.fusion_models.vision_training import Lessons, train

Progress = Callable[[str], None]

VIEWS = 5
"""Of each drawing."""
UNCHANGED = 0.15
"""The share of views that are the drawing as an encoder takes it."""
SIDED = {"button", "clockwise", "counterclockwise", "east", "west", "o\N{RIGHT SINGLE QUOTATION MARK}clock"}
"""Words of names whose drawings mean something else in a mirror, as do all that have a left or a right."""
TOGETHER = 8


def rebuild(cache_dir: Path, progress: Progress) -> None:
    """Trains and writes `fusion_models/heads/vision_names.safetensors` (some ten minutes on one thread).

    Raises Unavailable where the emoji or the base pack cannot be brought.
    """
    HEAD.parent.mkdir(exist_ok=True)
    trained(cache_dir, progress).save(HEAD)


def trained(cache_dir: Path, progress: Progress) -> NamesHead:
    """As `rebuild`, without writing it."""
    emoji = fetch_emoji(cache_dir, progress)
    fetch_base(cache_dir, progress)
    pack = load_pack(BASE, cache_dir)
    weights = pack.directory / "vision"
    lessons = lessons_of(emoji, PictureNetwork.load(weights), load_anchor(pack), progress)
    return train(lessons, sha256_of(weights / "model.safetensors"), progress)


def lessons_of(emoji: EmojiSet, network: PictureNetwork, sentences: Sentences, progress: Progress) -> Lessons:
    """What the network sees in VIEWS views of each drawing that may be trained on, in every training style."""
    taught = [one for one in emoji.emoji if one.part == TRAINING]
    described, right = described_views(emoji, taught, network, progress)
    return assembled(taught, described, right, sentences)


def assembled(taught: Sequence[Emoji], described: Tensor, right: Tensor, sentences: Sentences) -> Lessons:
    words = sorted({keyword for one in taught for keyword in one.keywords})
    index = {word: number for number, word in enumerate(words)}
    return Lessons(
        described=described,
        right=right,
        names=tuple(one.name for one in taught),
        places=placed([one.name for one in taught], sentences),
        keywords=tuple(tuple(index[keyword] for keyword in one.keywords) for one in taught),
        keyword_places=placed(words, sentences),
    )


def described_views(
    emoji: EmojiSet, taught: Sequence[Emoji], network: PictureNetwork, progress: Progress
) -> tuple[Tensor, Tensor]:
    """(n, described) in 16 bits, and (n,) which of `taught` each is a view of."""
    rows, right, batch = [], [], []
    drawings = [
        (number, one, style.name)
        for style in STYLES
        if style.part == TRAINING
        for number, one in enumerate(taught)
        if emoji.has(one, style.name)
    ]
    for done, (number, one, style) in enumerate(drawings):
        if done % 200 == 0:
            progress(f"drawing {done + 1} of {len(drawings)}")
        batch += list(_views(emoji.picture(one, style), one, style))
        right += [number] * VIEWS
        if len(batch) >= TOGETHER or done == len(drawings) - 1:
            rows.append(network.look(torch.cat(batch)).described.half())
            batch = []
    return torch.cat(rows), torch.tensor(right)


def _views(picture: bytes, one: Emoji, style: str) -> Iterator[Tensor]:
    for number in range(VIEWS):
        random = Random(f"{SEED}:{number}:{style}:{one.character}")  # noqa: S311 - a repeatable draw is what is wanted
        if random.random() < UNCHANGED:
            yield prepared(decode_image(picture))
        else:
            yield normalised(view(picture, random, may_mirror(one.name)))


def may_mirror(name: str) -> bool:
    return SIDED.isdisjoint(name.split()) and "left" not in name and "right" not in name


def placed(texts: Sequence[str], sentences: Sentences) -> Tensor:
    """(n, width), in batches that keep memory small."""
    return torch.from_numpy(np.concatenate([sentences.embed(texts[at : at + 64]) for at in range(0, len(texts), 64)]))
