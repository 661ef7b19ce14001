"""Rows of tokens as one tree."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.fusion_models.token_tree import TokenTree

PROMPT, END = (100, 101), 99
Rows = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=6), min_size=1, max_size=8)


def test_common_beginnings_are_there_once() -> None:
    tree = TokenTree.of([(1, 2), (1, 3), (1, 2)], PROMPT, END)
    assert list(tree.tokens) == [100, 101, 1, 2, 3]
    assert list(tree.places) == [0, 1, 2, 3, 3]
    assert not tree.seen[4, 3]
    assert tree.seen[4, [0, 1, 2, 4]].all()


@given(Rows)
def test_every_row_can_be_read_off_the_tree(rows: list[list[int]]) -> None:
    tree = TokenTree.of(rows, PROMPT, END)
    for number, row in enumerate(rows):
        own = tree.rows == number
        assert list(tree.wanted[own]) == [*row, END]
        for step, parent in enumerate(tree.parents[own]):
            before = np.flatnonzero(tree.seen[parent])
            assert list(tree.tokens[before]) == [*PROMPT, *row[:step]]
            assert list(tree.places[before]) == list(range(len(before)))
