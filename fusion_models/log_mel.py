"""Sound as Whisper sees it: the logarithm of its energy in mel bands, a hundred frames a second."""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

SAMPLE_RATE = 16_000
FFT, HOP = 400, 160

_HZ_A_MEL, _LINEAR_TO_MEL, _MELS_A_NATURAL = 200.0 / 3.0, 15.0, 27.0 / np.log(6.4)
"""Slaney 1998, "Auditory Toolbox": straight up to a thousand hertz, then 27 mels each time that it is 6.4 as much."""


class LogMel(nn.Module):
    def __init__(self, bins: int) -> None:
        super().__init__()
        self.register_buffer("filters", torch.from_numpy(mel_filters(bins).astype(np.float32)))
        self.register_buffer("window", torch.hann_window(FFT))

    def forward(self, samples: Tensor) -> Tensor:
        """(samples,) → (samples / HOP, bins)."""
        spectrum = torch.stft(samples, FFT, HOP, window=cast(Tensor, self.window), return_complex=True)[:, :-1]
        power = spectrum.real.square() + spectrum.imag.square()
        loudness = (power.T @ cast(Tensor, self.filters)).clamp(min=1e-10).log10()
        return (loudness.maximum(loudness.max() - 8.0) + 4.0) / 4.0


def mel_filters(bins: int) -> npt.NDArray[np.float64]:
    """(frequencies, bins): triangles from zero to half the sample rate, equally wide in mels and equal in area."""
    nyquist = SAMPLE_RATE / 2
    highest = _LINEAR_TO_MEL + _MELS_A_NATURAL * np.log(nyquist / (_LINEAR_TO_MEL * _HZ_A_MEL))
    mels = np.linspace(0.0, highest, bins + 2)
    bent = _LINEAR_TO_MEL * _HZ_A_MEL * np.exp((mels - _LINEAR_TO_MEL) / _MELS_A_NATURAL)
    corners = np.where(mels < _LINEAR_TO_MEL, mels * _HZ_A_MEL, bent)
    frequencies = np.linspace(0.0, nyquist, 1 + FFT // 2)[:, None]
    widths = np.diff(corners)
    rising = (frequencies - corners[:-2]) / widths[:-1]
    falling = (corners[2:] - frequencies) / widths[1:]
    triangles = np.maximum(np.minimum(rising, falling), 0.0)
    return np.asarray(triangles * 2.0 / (corners[2:] - corners[:-2]))
