"""Small pictures and sounds, made as files are."""

from __future__ import annotations

import io

import numpy as np
import soundfile
from PIL import Image


def picture(size: tuple[int, int] = (40, 30), mode: str = "RGB", kind: str = "PNG", color: object = 0) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, color).save(file, kind)  # type: ignore[arg-type]
    return file.getvalue()


def sound(samples: np.ndarray, rate: int = 16_000, kind: str = "WAV", subtype: str | None = "FLOAT") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()
