"""Texts compared by how they are spelt and how they sound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.fusion.spelling import likeness, sound_of, spoken_form, written_forms


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Press 1 to ...", "press one to"),
        ("press * or #", "press star or pound"),
        ("the 13th, 20th, 21st and 12th", "the thirteenth twentieth twenty first and twelfth"),
        ("extension 1234", "extension one two three four"),
        ("100", "hundred"),
        ("07", "zero seven"),
        ("I\u2019m", "i'm"),
        ("...", ""),
    ],
)
def test_a_text_as_it_is_spoken(text: str, spoken: str) -> None:
    assert spoken_form(text) == spoken


def test_numbers_are_written_in_both_ways() -> None:
    assert written_forms("press one ...") == ("Press one.", "Press 1.")
    assert written_forms("the 5th") == ("The fifth.", "The 5th.")
    assert written_forms("Goodbye!") == ("Goodbye!",)
    assert written_forms(" ... ") == ()


def test_what_sounds_alike_is_more_alike_than_what_is_only_spelt_so() -> None:
    same, near, far = likeness("Press 1 for the knight.", ["press one for the night", "press one for the light", "no"])
    assert same > near > far
    assert sound_of("knight") == sound_of("night")


def test_nothing_is_like_nothing() -> None:
    assert list(likeness("", ["", "a", "..."])) == [0.0, 0.0, 0.0]
    assert list(likeness("a", [])) == []


@given(st.text(max_size=60), st.lists(st.text(max_size=60), min_size=1, max_size=5))
def test_likeness_is_a_share_and_greatest_for_the_text_itself(heard: str, others: list[str]) -> None:
    values = likeness(heard, [heard, *others])
    assert ((values >= 0) & (values <= 1)).all()
    assert values[0] == values.max()


@given(st.text(max_size=60))
def test_any_text_has_forms_and_they_are_not_empty(text: str) -> None:
    assert all(form.strip() for form in written_forms(text))
    assert spoken_form(spoken_form(text)) == spoken_form(text)
