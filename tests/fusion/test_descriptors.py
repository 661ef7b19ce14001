"""Descriptors of pictures and sounds: widths that never change, and what must not count does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.fusion_models.descriptors import segment_means, thumbnails

WIDTH = 16 * 16 + 3 * 4 * 4


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_thumbnails_have_one_width_whatever_the_picture(height: int, width: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    found = thumbnails(pixels)
    assert found.shape == (WIDTH,)
    assert np.isfinite(found).all()


def test_exposure_and_contrast_do_not_count_in_the_grey_one() -> None:
    pixels = np.random.default_rng(1).integers(0, 100, (16, 16, 1)).astype(np.uint8).repeat(3, 2)
    assert np.allclose(thumbnails(pixels)[:256], thumbnails(pixels * 2 + 30)[:256], atol=1e-4)
    assert not thumbnails(np.full((9, 9, 3), 77, np.uint8))[:256].any()


@given(st.integers(1, 50), st.integers(1, 10))
def test_segments_are_means_in_order(rows: int, segments: int) -> None:
    values = np.arange(rows, dtype=np.float32)[:, None].repeat(2, 1)
    found = segment_means(values, segments).reshape(segments, 2)
    assert (np.diff(found[:, 0]) >= 0).all()
    assert found.min() >= 0
    assert found.max() <= rows - 1


def test_segments_cover_everything() -> None:
    values = np.arange(16, dtype=np.float32)[:, None]
    assert segment_means(values, 8).tolist() == pytest.approx([0.5 + 2 * n for n in range(8)])
