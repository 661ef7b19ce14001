"""Code as tokens, words and shapes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from noodle_ray.fusion.code_tokens import (
    FIXED,
    OUTLINE_WINDOWS,
    SHAPE_WINDOWS,
    literal_terms,
    outline_terms,
    shape_terms,
    split_name,
    stem,
    terms_of,
    tokens_of,
    words_of_code,
    words_of_text,
)

CODE = """
def parse(path, limit=10):  # reads a file
    for line in open(path):
        if len(line) > limit:
            yield line.strip("\\n")
"""

NAMES = st.from_regex(r"[a-z]{3,8}_[a-z]{2,5}", fullmatch=True).filter(lambda name: name not in FIXED)


def test_tokens_keep_strings_numbers_and_line_ends_whole() -> None:
    found = [(token.kind, token.text) for token in tokens_of("x1 = f('a b', 0x1f)  # why\ny")]
    assert found == [
        ("name", "x1"),
        ("operator", "="),
        ("name", "f"),
        ("operator", "("),
        ("string", "'a b'"),
        ("operator", ","),
        ("number", "0x1f"),
        ("operator", ")"),
        ("comment", "# why"),
        ("line", "\n"),
        ("name", "y"),
    ]


def test_names_fall_into_their_words() -> None:
    assert split_name("parse_HTTPDate2") == ["parse", "http", "date", "2"]
    assert words_of_text("Parses popitem() and pop_item") == ["pars", "popitem", "and", "pop", "item", "popitem"]
    assert {"reads", "file"}.isdisjoint(words_of_code(CODE))
    assert {"read", "fil", "pars", "path", "limit"} <= set(words_of_code(CODE))


def test_inflections_of_a_word_are_one() -> None:
    assert stem("parses") == stem("parsed") == stem("parsing") == stem("parse")
    assert stem("entries") == stem("entry")
    assert stem("class") == "class"


@given(st.lists(NAMES, min_size=3, max_size=3, unique=True))
@settings(deadline=None)
def test_renaming_variables_changes_neither_shape_nor_outline(names: list[str]) -> None:
    renamed = CODE
    for old, new in zip(["path", "limit", "line"], names, strict=True):
        renamed = renamed.replace(old, new)
    for terms in (shape_terms, outline_terms):
        assert (terms(renamed) == terms(CODE)).all()
    assert set(literal_terms(renamed)) != set(literal_terms(CODE))


def test_a_shape_tells_which_names_are_the_same() -> None:
    assert set(shape_terms("a = b + a")) != set(shape_terms("a = b + c"))
    assert set(shape_terms("a = b + a")) == set(shape_terms("x = y + x"))


def test_an_outline_keeps_attributes_and_calls() -> None:
    assert set(outline_terms("rows.append(x)")) == set(outline_terms("lines.append(y)"))
    assert set(outline_terms("rows.append(x)")) != set(outline_terms("rows.extend(x)"))
    assert set(shape_terms("rows.append(x)")) == set(shape_terms("rows.extend(x)"))


@given(st.text(max_size=400))
@settings(deadline=None)
def test_any_text_has_terms(text: str) -> None:
    for terms in (literal_terms, shape_terms, outline_terms):
        assert terms(text).dtype == np.uint64
        assert len(terms(text)) == 0 or tokens_of(text)
    assert all(words_of_code(text))
    assert all(words_of_text(text))


@given(st.text(alphabet="ab.( \n", max_size=60))
@settings(deadline=None)
def test_a_window_of_each_length_begins_at_each_token(text: str) -> None:
    tokens = tokens_of(text)
    while tokens and tokens[-1].kind == "line":
        tokens.pop()
    for terms, windows in ((shape_terms, SHAPE_WINDOWS), (outline_terms, OUTLINE_WINDOWS)):
        wanted = sum(max(0, len(tokens) - length + 1) for length in windows)
        assert len(terms(text)) == (wanted or len(tokens))


def test_a_part_of_code_has_only_terms_of_the_whole() -> None:
    part = "\n".join(CODE.splitlines()[3:5])
    for terms in (shape_terms, outline_terms, literal_terms):
        assert set(terms(part)) <= set(terms(CODE))


def test_hashes_are_the_same_in_every_process() -> None:
    assert terms_of(["noodle", ""]).tolist() == [10178122141128286639, 13020603013274838756]


def test_text_full_of_quotes_is_read_in_linear_steps() -> None:
    assert len(tokens_of('\\"' * 20_000)) > 0
    assert len(tokens_of("'''" * 10_000)) > 0
