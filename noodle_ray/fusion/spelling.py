"""How alike two texts are as they are spelt and as they sound: what was heard against what may have been said.

Sound: Philips 1990, "Hanging on the Metaphone". Likeness: what two strings have in common in the same order, as a
share of both (normalised Indel similarity, as in difflib, but in microseconds).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import jellyfish
import numpy as np
import numpy.typing as npt
from rapidfuzz import process
from rapidfuzz.distance import Indel

LONGEST = 400
"""Characters of a text that are compared: half a minute of speech."""
REMEMBERED_TEXTS = 8192
SOUND_SHARE = 0.5
"""How much of the likeness is the sound's."""

_BELOW_TWENTY = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen
"""
_ONES = _BELOW_TWENTY.split()
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth"}
_ORDINALS |= {"twelve": "twelfth"}
_ROUND = {"100": "hundred", "1000": "thousand", "1000000": "million"}
_SIGNS = {
    "*": "star", "#": "pound", "%": "percent", "&": "and", "$": "dollar", "@": "at", "+": "plus", "=": "equals",
    "<": "less than", ">": "greater than",
}  # fmt: skip
_PARTS = re.compile(r"(\d+)(st|nd|rd|th)?\b|([*#%&$@+=<>])|((?:[^\W\d_]|['\u2019])+)")


def likeness(heard: str, candidates: Sequence[str]) -> npt.NDArray[np.float64]:
    """(candidates,) 0..1: how much each is like what was heard, in spelling and in sound. 0 where one is empty."""
    if not candidates:
        return np.zeros(0)
    forms = [_forms(text[:LONGEST]) for text in candidates]
    spelt, sounding = _forms(heard[:LONGEST])
    by_spelling = _similarities(spelt, [form for form, _ in forms])
    by_sound = _similarities(sounding, [form for _, form in forms])
    return (1 - SOUND_SHARE) * by_spelling + SOUND_SHARE * by_sound


def spoken_form(text: str) -> str:
    """The text as one would say it: small letters, numbers and signs as words, no punctuation."""
    return " ".join(_said(*match) for match in _PARTS.findall(_encodable(text).lower()))


def written_forms(text: str) -> tuple[str, ...]:
    """The ways in which a transcript may write a text: a sentence with its numbers as words, or as digits."""
    plain = " ".join(_ELLIPSES.sub(" ", _encodable(text)).split())
    forms = (_with_words(plain), _with_digits(plain))
    return tuple(dict.fromkeys(_sentence(form) for form in forms if form))


def _encodable(text: str) -> str:
    """Without lone surrogates, which no tokenizer takes."""
    return text.encode(errors="ignore").decode()


def _with_words(text: str) -> str:
    return _DIGITS.sub(lambda match: _ordinal(match[1]) if match[2] else _cardinal(match[1]), text)


def _with_digits(text: str) -> str:
    return _WORDS.sub(lambda match: _WRITTEN.get(match[0].lower(), match[0]), text)


def _sentence(text: str) -> str:
    started = text[0].upper() + text[1:]
    return started if started[-1] in ".!?" else started + "."


def sound_of(spoken: str) -> str:
    """The sounds of a spoken form: its words' metaphones, one behind the other."""
    return "".join(jellyfish.metaphone(word) or word.upper() for word in spoken.split())


@lru_cache(REMEMBERED_TEXTS)
def _forms(text: str) -> tuple[str, str]:
    spoken = spoken_form(text)
    return spoken.replace(" ", ""), sound_of(spoken)


def _similarities(query: str, choices: list[str]) -> npt.NDArray[np.float64]:
    rows = process.cdist([query], choices, scorer=Indel.normalized_similarity, dtype=np.float64)[0]
    # Nothing is not like nothing: an empty transcript says nothing about an empty candidate.
    return np.where([bool(query and choice) for choice in choices], rows, 0.0)


def _said(number: str, ending: str, sign: str, word: str) -> str:
    if number:
        return _ordinal(number) if ending else _cardinal(number)
    return _SIGNS[sign] if sign else word.replace("\u2019", "'")


def _cardinal(digits: str) -> str:
    """Numbers below a hundred as words, others digit by digit."""
    value = int(digits) if digits.isascii() and len(digits) <= 2 and not (len(digits) == 2 and digits[0] == "0") else -1
    if value < 0 and digits in _ROUND:
        return _ROUND[digits]
    if value < 0:
        return " ".join(_ONES[int(digit)] for digit in digits)
    if value < len(_ONES):
        return _ONES[value]
    tens, ones = divmod(value, 10)
    return _TENS[tens - 2] + (f" {_ONES[ones]}" if ones else "")


def _ordinal(digits: str) -> str:
    *before, last = _cardinal(digits).split()
    if last not in _ORDINALS:
        ordinal = last[:-1] + "ieth" if last.endswith("y") else last + ("h" if last.endswith("t") else "th")
    else:
        ordinal = _ORDINALS[last]
    return " ".join([*before, ordinal])


def _numerals() -> dict[str, str]:
    numbers = [str(number) for number in range(100)] + list(_ROUND)
    endings = {"1": "st", "2": "nd", "3": "rd"}
    written = {_cardinal(digits): digits for digits in numbers}
    for digits in numbers:
        ending = "th" if digits[-2:-1] == "1" else endings.get(digits[-1], "th")
        written[_ordinal(digits)] = digits + ending
    return written


_WRITTEN = _numerals()
"""Every number word that stands alone, as digits."""
_ELLIPSES = re.compile(r"\.\.\.|…")
_DIGITS = re.compile(r"(\d+)(st|nd|rd|th)?\b")
_WORDS = re.compile(
    r"\b(?:" + "|".join(sorted(map(re.escape, _WRITTEN), key=len, reverse=True)) + r")\b", re.IGNORECASE
)
