"""Task 4: the name of what is drawn, in a style that was never trained on, alone and with a poor text beside it.

The picture is an emoji of OpenMoji; the text is one keyword of it ("partial"), or its name with letters and a word
missing ("noisy"). Temperatures and weights come from other emoji, in another style that was not trained on either
(Fluent). Emoji whose pictures were trained on in other styles ("seen names") and emoji of which no picture ever was
("unseen names") are apart. Candidates are names: 100 drawn from the same kind for each case, or all of both kinds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np

from noodle_ray.entry.bench.fusion.task import Progress, Setting, Task
from noodle_ray.entry.training.emoji import TEST, TRAINING, VALIDATION, Emoji, EmojiSet, fetch_emoji
from noodle_ray.errors import Unavailable
from noodle_ray.fusion.decoding import Pixels, decode_image
from noodle_ray.fusion.fitting import Case, fit_rule, subsets_of
from noodle_ray.fusion.reading import Matrix, Reading, Vector
from noodle_ray.fusion.rule import subset_of
from noodle_ray.fusion.selective import Answer, answer_of
from noodle_ray.fusion_models.encoders import load_anchor, load_encoder
from noodle_ray.fusion_models.fetch import fetch_base
from noodle_ray.fusion_models.packs import BASE, load_pack
from noodle_ray.fusion_models.text import Sentences
from noodle_ray.fusion_models.vision import ClassMixtureEncoder

SEED = 7
CANDIDATES = 100
VALIDATION_STYLE, TEST_STYLE = "fluent", "openmoji"
LETTERS_LOST = 0.25
TOGETHER = 16
RIVAL = "ConSE"
SEEN, UNSEEN = "seen names", "unseen names"
FIT, CHECK, FINAL = "fit", "validation", "test"


def kind_of(emoji: Emoji) -> str:
    return SEEN if emoji.part == TRAINING else UNSEEN


def share_of(emoji: Emoji) -> str:
    """What the emoji is for: to fit rules on, to choose them with, or to test. By hash, and each emoji is for one."""
    if emoji.part == TEST:
        return FINAL
    place = hashlib.sha256(f"{SEED}:share:{emoji.character}".encode()).digest()[0] / 256
    if emoji.part == VALIDATION:
        return FIT if place < 0.6 else CHECK
    return FINAL if place < 0.5 else FIT if place < 0.8 else CHECK


def style_of(emoji: Emoji) -> str:
    return TEST_STYLE if share_of(emoji) == FINAL else VALIDATION_STYLE


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


TEXTS: dict[str, Callable[[Emoji, Random], str]] = {"partial text": partial_text, "noisy text": noisy_text}


@dataclass(frozen=True, slots=True)
class Evidence:
    """Every emoji's place by its name, by its picture (ours and the rival's) and by its texts: unit vectors.

    used: the emoji that there are pictures of in their style, as numbers of `emoji`.
    """

    emoji: Sequence[Emoji]
    used: Sequence[int]
    names: Matrix
    pictures: Mapping[str, Mapping[int, Vector]]
    texts: Mapping[str, Matrix]


def gathered(cache_dir: Path, progress: Progress) -> Evidence:
    """Runs the encoders over all pictures and texts. Raises Unavailable where data or pack cannot be brought."""
    found = fetch_emoji(cache_dir, progress)
    fetch_base(cache_dir, progress)
    pack = load_pack(BASE, cache_dir)
    encoders = {"ours": load_encoder(pack, "vision"), RIVAL: _conse(pack.directory / "vision")}
    used = [number for number, emoji in enumerate(found.emoji) if found.has(emoji, style_of(emoji))]
    pictures: dict[str, dict[int, Vector]] = {name: {} for name in encoders}
    for start in range(0, len(used), TOGETHER):
        if start % (10 * TOGETHER) == 0:
            progress(f"picture {start + 1} of {len(used)}")
        chosen = used[start : start + TOGETHER]
        pixels = [_pixels(found, found.emoji[number]) for number in chosen]
        for name, encoder in encoders.items():
            assert isinstance(encoder, ClassMixtureEncoder)
            pictures[name].update(zip(chosen, map(_placed, encoder.encode_many(pixels)), strict=True))
    anchor = load_anchor(pack)
    names = embedded([emoji.name for emoji in found.emoji], anchor)
    texts = {kind: embedded(texts_of(found.emoji, kind), anchor) for kind in TEXTS}
    return Evidence(found.emoji, used, names, pictures, texts)


def _conse(directory: Path) -> ClassMixtureEncoder:
    return ClassMixtureEncoder.load(directory, RIVAL)


def _pixels(found: EmojiSet, emoji: Emoji) -> Pixels:
    return decode_image(found.picture(emoji, style_of(emoji)))


def _placed(reading: Reading) -> Vector:
    if reading.embedding is None:
        raise Unavailable(f"{reading.encoder} has a space of its own")
    return reading.embedding


def texts_of(emoji: Sequence[Emoji], kind: str) -> list[str]:
    return [TEXTS[kind](one, Random(f"{SEED}:{kind}:{one.character}")) for one in emoji]  # noqa: S311 - repeatable


def embedded(texts: Sequence[str], sentences: Sentences) -> Matrix:
    """(n, width), in batches that keep memory small."""
    return np.concatenate([sentences.embed(texts[start : start + 64]) for start in range(0, len(texts), 64)])


def candidates_of(evidence: Evidence, right: int, count: int | None) -> list[int]:
    """The right one last, before it others of its kind by a seeded draw; without a count all emoji of both kinds."""
    everyone = range(len(evidence.emoji))
    if count is None:
        return [*(number for number in everyone if number != right), right]
    kind = kind_of(evidence.emoji[right])
    others = [number for number in everyone if number != right and kind_of(evidence.emoji[number]) == kind]
    drawn = Random(f"{SEED}:{evidence.emoji[right].character}").sample(others, count - 1)  # noqa: S311 - repeatable
    return [*drawn, right]


def case_of(evidence: Evidence, right: int, text: str, count: int | None, encoder: str) -> Case:
    """The right candidate is the last: of equals the first counts, so that a tie is never to our advantage."""
    candidates = candidates_of(evidence, right, count)
    rows = evidence.names[candidates].astype(np.float64)
    places = {"vision": evidence.pictures[encoder][right], "text": evidence.texts[text][right]}
    return Case({source: rows @ place.astype(np.float64) for source, place in places.items()}, len(candidates) - 1)


def settings(cache_dir: Path, progress: Progress) -> Iterator[Setting]:
    evidence = gathered(cache_dir, progress)
    for kind in (SEEN, UNSEEN):
        for text in TEXTS:
            for count in (CANDIDATES, None):
                yield _setting(evidence, kind, text, count)


def _setting(evidence: Evidence, kind: str, text: str, count: int | None) -> Setting:
    parts = {
        encoder: {share: _cases(evidence, kind, share, text, count, encoder) for share in (FIT, CHECK, FINAL)}
        for encoder in evidence.pictures
    }
    ours = parts["ours"]
    return Setting(
        name=f"{kind}, {text}, {count or len(evidence.emoji)} candidates",
        fit=ours[FIT],
        validation=ours[CHECK],
        test=ours[FINAL],
        clean=[("vision",)] * len(ours[FINAL]),
        rivals=_rivals(parts[RIVAL]),
    )


def _cases(evidence: Evidence, kind: str, share: str, text: str, count: int | None, encoder: str) -> list[Case]:
    chosen = [
        number
        for number in evidence.used
        if kind_of(evidence.emoji[number]) == kind and share_of(evidence.emoji[number]) == share
    ]
    return [case_of(evidence, number, text, count, encoder) for number in chosen]


def _rivals(parts: Mapping[str, Sequence[Case]]) -> dict[tuple[str, str], list[Answer]]:
    """The rival's answers, calibrated and fused as ours are."""
    rule = fit_rule(parts[FIT], parts[CHECK])
    answers = {}
    for modalities in subsets_of(parts[FINAL]):
        if "vision" in modalities:
            limited = [case.limited_to(modalities) for case in parts[FINAL]]
            answers[RIVAL, subset_of(modalities)] = [
                answer_of(rule.posterior(case.scores), case.right) for case in limited if case is not None
            ]
    return answers


TASK = Task(
    name="picture-names",
    split=(
        "by style: trained on Noto (two), Twemoji, Emoji One, Firefox OS; rules from Fluent; tested on OpenMoji; "
        "by emoji's hash: 72 % trained on, 14 % validation, 14 % test, and those trained on again into fit, validation "
        "and test of rules"
    ),
    settings=settings,
)
