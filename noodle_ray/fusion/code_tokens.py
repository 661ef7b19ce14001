"""Code as tokens, as the words that people would use for it, and as the shape that is left without its names.

No parser: fragments, broken code and other languages than Python have tokens, too. The shape of a window of tokens
keeps which names in it are the same and forgets what they are called (parameterised matching: Baker 1993, "A Theory of
Parameterized Pattern Matching", section 3), so that renamed code has the shape it had.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

Terms = npt.NDArray[np.uint64]
"""(terms,): what is counted, each as a 64-bit hash of what it stands for; the same in every process."""

SHAPE_WINDOWS = (2, 3, 5, 8, 12)
OUTLINE_WINDOWS = (1, 2, 3, 4, 6, 9, 14)
"""Lengths of the windows of tokens whose shapes are compared: the longest find what is in one place only."""

NAME, NUMBER, STRING, COMMENT, OPERATOR, LINE = "name", "number", "string", "comment", "operator", "line"
# A string is at most so long, and ends on its line: without the bound, text full of quotes would take quadratic time.
_TOKEN = re.compile(
    r"""(?P<string>[rRbBuUfF]{0,2}(?:\"{3}[^"\\]{0,2000}\"{3}|'{3}[^'\\]{0,2000}'{3}
            |"(?:\\.|[^"\\\n]){0,500}"|'(?:\\.|[^'\\\n]){0,500}'))
      |(?P<comment>\#[^\n]*)
      |(?P<name>[^\W\d]\w*)
      |(?P<number>\d[\w.]*)
      |(?P<line>\n\s*)
      |(?P<operator>->|:=|\*\*=?|//=?|<<=?|>>=?|[-+*/%@&|^=!<>]=|&&|\|\||[^\w\s])""",
    re.VERBOSE,
)
_NAME = re.compile(r"[^\W_]+")
# Between aB, ABc, a1 and 1a.
_SEAM = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=\d)(?=\D)|(?<=\D)(?=\d)")

_FIXED = """
    False None True and as assert async await break class continue def del elif else except finally for from global if
    import in is lambda nonlocal not or pass raise return try while with yield match case self cls
    abs all any bool bytearray bytes callable chr dict dir divmod enumerate filter float format frozenset getattr
    hasattr hash hex id input int isinstance issubclass iter len list map max memoryview min next object open ord pow
    print property range repr reversed round set setattr slice sorted staticmethod str sum super tuple type vars zip
    Exception ValueError TypeError KeyError IndexError AttributeError NotImplementedError OSError RuntimeError
    StopIteration ImportError AssertionError NotImplemented
    function const let var new null true false undefined this switch default do void static public private protected
    struct enum interface extends implements throw throws catch package fn mut impl pub use mod func defer nil
"""
FIXED = frozenset(_FIXED.split())
"""Names that nobody renames: keywords, and what Python and its habits define."""


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str


def tokens_of(code: str) -> list[Token]:
    """Every token but blanks; a line's end (with the blank lines after it) is one. What is no token is left out."""
    return [Token(match.lastgroup or OPERATOR, match.group()) for match in _TOKEN.finditer(code)]


def is_renameable(token: Token) -> bool:
    return token.kind == NAME and token.text not in FIXED


def split_name(name: str) -> list[str]:
    """`parse_HTTPDate` is made of "parse", "http" and "date"."""
    return [part.lower() for piece in _NAME.findall(name) for part in _SEAM.split(piece)]


def words_of_text(text: str) -> list[str]:
    """The words of a text, compound names in it taken apart, inflections removed."""
    return [stem(word) for word in _compounds_apart(_NAME_OR_NUMBER.findall(text))]


_NAME_OR_NUMBER = re.compile(r"\w+")


def words_of_code(code: str) -> list[str]:
    """The words in a piece of code: those of its names, strings and comments, inflections removed."""
    found: list[str] = []
    for token in tokens_of(code):
        if token.kind in (NAME, NUMBER):
            found.append(token.text)
        elif token.kind in (STRING, COMMENT):
            found += _NAME_OR_NUMBER.findall(token.text)
    return [stem(word) for word in _compounds_apart(found)]


def _compounds_apart(names: Sequence[str]) -> Iterator[str]:
    """Each name's parts, and the name in one word where it has several: "popitem" and "pop_item" are the same."""
    for name in names:
        parts = split_name(name)
        yield from parts
        if len(parts) > 1:
            yield "".join(parts)


def stem(word: str) -> str:
    """The word without its most frequent English endings: "parses", "parsed" and "parsing" become "pars".

    Coarser than Porter's (1980) and blind to exceptions: both sides of a comparison err alike.
    """
    for ending in ("ing", "ied", "ies", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            return word[: -len(ending)] + ("y" if ending in ("ied", "ies") else "")
    return word


def literal_terms(code: str) -> Terms:
    """The tokens as they are spelt, names whole, and each with the next one."""
    spelt = [token.text for token in tokens_of(code) if token.kind not in (LINE, COMMENT)]
    single = terms_of(spelt)
    return np.concatenate([single, _chained([single[:-1], single[1:]])]) if len(single) > 1 else single


def shape_terms(code: str) -> Terms:
    """The shapes of all windows of SHAPE_WINDOWS tokens; every name but FIXED is masked.

    A masked name counts as new in its window, or as the one that stands so many tokens before.
    """
    tokens = _without_comments(code)
    return _shapes(tokens, [is_renameable(token) for token in tokens], SHAPE_WINDOWS)


def outline_terms(code: str) -> Terms:
    """As shape_terms over OUTLINE_WINDOWS, with attributes and what is called as spelt: variables alone are masked."""
    tokens = _without_comments(code)
    before, after = [None, *tokens][: len(tokens)], [*tokens[1:], None]
    masked = [
        is_renameable(token) and not _is_dot(left) and not _is_bracket(right)
        for left, token, right in zip(before, tokens, after, strict=False)
    ]
    return _shapes(tokens, masked, OUTLINE_WINDOWS)


def _is_dot(token: Token | None) -> bool:
    return token is not None and token.text == "."


def _is_bracket(token: Token | None) -> bool:
    return token is not None and token.text == "("


def _without_comments(code: str) -> list[Token]:
    tokens = [token for token in tokens_of(code) if token.kind != COMMENT]
    while tokens and tokens[-1].kind == LINE:
        tokens.pop()
    return tokens


def _shapes(tokens: Sequence[Token], is_masked: Sequence[bool], windows: Sequence[int]) -> Terms:
    if not tokens:
        return np.zeros(0, np.uint64)
    spelling = ["\n" if token.kind == LINE else token.text for token in tokens]
    spelt = terms_of(["" if hidden else text for text, hidden in zip(spelling, is_masked, strict=True)])
    back = _distances(spelling, is_masked)
    return np.concatenate(
        [_window_shapes(spelt, back, length) for length in windows if length <= len(tokens)] or [spelt]
    )


def _distances(spelling: Sequence[str], is_masked: Sequence[bool]) -> npt.NDArray[np.int64]:
    """How many tokens before the same masked name stood last, 0 at its first occurrence; -1 for what is not masked."""
    last: dict[str, int] = {}
    result = np.full(len(spelling), -1, np.int64)
    for position, (text, hidden) in enumerate(zip(spelling, is_masked, strict=True)):
        if hidden:
            result[position] = position - last.get(text, position)
            last[text] = position
    return result


def _window_shapes(spelt: Terms, back: npt.NDArray[np.int64], length: int) -> Terms:
    columns = []
    for offset in range(length):
        there = slice(offset, len(spelt) - length + offset + 1)
        # A name that stood before the window is new in it.
        seen = np.where((back[there] > 0) & (back[there] <= offset), back[there], 0)
        columns.append(np.where(back[there] < 0, spelt[there], _BACK[seen]))
    return _chained(columns)


def terms_of(words: Sequence[str]) -> Terms:
    return np.array([_hash(word) for word in words], np.uint64)


@lru_cache(maxsize=2**16)
def _hash(word: str) -> int:
    return int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


_BACK = np.array([_hash(f"\0{distance}") for distance in range(max(*SHAPE_WINDOWS, *OUTLINE_WINDOWS) + 1)], np.uint64)
_PRIME = np.uint64(0x9E3779B97F4A7C15)


def _chained(columns: Sequence[Terms]) -> Terms:
    """One term for each row of several, in their order: multiply, rotate and add, modulo 2**64."""
    result = np.full(len(columns[0]), np.uint64(len(columns)))
    for column in columns:
        result = (result ^ column) * _PRIME
        result ^= result >> np.uint64(29)
    return result
