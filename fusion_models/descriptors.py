"""General descriptors of pictures and sounds beside the networks' own states, for heads that users train.

A network trained on photographs or on speech leaves out what a head may need: where in a small picture it is dark, and
when in a clip which sound was heard.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image

from noodle_ray.fusion.decoding import Pixels
from noodle_ray.fusion.reading import Vector

LAYOUT = 1
"""Counted up with every change of what features consist of: remembered readings of another layout are not used."""
LUMA, COLOUR = 16, 4
"""Pixels a side of the two thumbnails."""
SEGMENTS = 8
FLAT = 1e-3


def thumbnails(pixels: Pixels) -> Vector:
    """(256 + 48,): the whole picture as 16 x 16 pixels of grey and 4 x 4 of colour.

    The grey ones have mean 0 and deviation 1: exposure and contrast do not count (LeCun et al. 2012, "Efficient
    BackProp", section 4.3). A picture of one grey is all zeros.
    """
    image = Image.fromarray(pixels)
    grey = _standardised(_resized(image.convert("L"), LUMA))
    colour = _resized(image, COLOUR) / 127.5 - 1.0
    return np.concatenate([grey, colour]).astype(np.float32)


def segment_means(rows: npt.NDArray[np.float32], segments: int = SEGMENTS) -> Vector:
    """(n, width) → (segments * width,): the rows' means over equal stretches of time, in their order.

    A clip with fewer rows than segments repeats its rows.
    """
    edges = np.linspace(0, len(rows), segments + 1)
    means = [rows[int(start) : max(int(np.ceil(end)), int(start) + 1)].mean(0) for start, end in pairwise(edges)]
    return np.concatenate(means).astype(np.float32)


def _resized(image: Image.Image, side: int) -> npt.NDArray[np.float32]:
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR), np.float32).ravel()


def _standardised(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    deviation = float(values.std())
    return (values - values.mean()) / deviation if deviation > FLAT else np.zeros_like(values)
