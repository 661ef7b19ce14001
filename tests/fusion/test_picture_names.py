"""The picture-naming task: its parts share nothing, its texts are poor, its right answers are among the candidates."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.entry.bench.fusion import picture_names as task
from noodle_ray.entry.training.emoji import Emoji
from noodle_ray.entry.training.vision_names import may_mirror

characters = st.characters(categories=["Lu", "Ll", "So"])


def emoji(character: str = "\N{CAT FACE}", name: str = "cat face with tears") -> Emoji:
    return Emoji(character, name, ("kitten", "cat", "joy"), 1)


@given(characters)
def test_every_emoji_is_for_one_thing_in_one_style(character: str) -> None:
    one = emoji(character)
    share, style = task.share_of(one), task.style_of(one)
    assert (style == "openmoji") == (share == "test")
    assert (task.kind_of(one) == "seen names") == (one.part == "training")
    if one.part in ("validation", "test"):
        assert (share == "test") == (one.part == "test")


@given(st.integers(0, 999))
def test_partial_texts_are_keywords_that_the_name_does_not_hold(seed: int) -> None:
    assert task.partial_text(emoji(), Random(seed)) in ("kitten", "joy")
    assert task.partial_text(Emoji("x", "sun", (), 1), Random(seed)) == "sun"


@given(st.integers(0, 999), st.sampled_from(["cat face with tears", "sun", "ox", "A button (blood type)"]))
def test_noisy_texts_keep_letters_in_order(seed: int, name: str) -> None:
    text = task.noisy_text(emoji(name=name), Random(seed))
    assert text
    letters = iter(name.lower() + name)
    assert all(letter in letters for letter in text.replace(" ", ""))
    if len(name.split()) >= 3:
        assert len(text.split()) < len(name.split())


def test_texts_are_the_same_each_time() -> None:
    some = [emoji(chr(65 + number)) for number in range(20)]
    for kind in task.TEXTS:
        assert task.texts_of(some, kind) == task.texts_of(some[::-1], kind)[::-1]


def evidence(count: int = 300) -> task.Evidence:
    some = [emoji(chr(0x1F300 + number), f"name {number}") for number in range(count)]
    random = np.random.default_rng(0)

    def unit() -> np.ndarray:
        rows = random.normal(size=(count, 8)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    names = unit()
    near = names + 0.1 * unit()
    pictures = {"ours": dict(enumerate(near)), task.RIVAL: dict(enumerate(unit()))}
    return task.Evidence(some, range(count), names, pictures, dict.fromkeys(task.TEXTS, unit()))


@pytest.mark.parametrize("count", [20, None])
def test_the_right_candidate_is_last_and_there_once(count: int | None) -> None:
    given_evidence = evidence()
    candidates = task.candidates_of(given_evidence, 5, count)
    assert candidates[-1] == 5
    assert len(set(candidates)) == len(candidates) == (count or 300)
    if count:
        kinds = {task.kind_of(given_evidence.emoji[number]) for number in candidates}
        assert kinds == {task.kind_of(given_evidence.emoji[5])}
    case = task.case_of(given_evidence, 5, "noisy text", count, "ours")
    assert int(np.argmax(case.scores["vision"])) == case.right == len(candidates) - 1


def test_a_setting_has_three_parts_and_the_rivals_answers() -> None:
    setting = task._setting(evidence(), "seen names", "noisy text", 20)
    assert min(len(setting.fit), len(setting.validation), len(setting.test)) > 20
    assert set(setting.rivals) == {("ConSE", "vision"), ("ConSE", "text+vision")}
    assert len(setting.rivals["ConSE", "vision"]) == len(setting.test) == len(setting.clean)


def test_what_has_sides_is_not_mirrored() -> None:
    assert may_mirror("octopus")
    assert not may_mirror("backhand index pointing left")
    assert not may_mirror("OK button")
