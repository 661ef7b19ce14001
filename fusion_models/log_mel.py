"""Sound as Whisper sees it: the logarithm of its energy in mel bands, a hundred frames a second."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

SAMPLE_RATE = 16_000
FFT, HOP = 400, 160


class LogMel(nn.Module):
    def __init__(self, bins: int) -> None:
        super().__init__()
        half, rate = 1 + FFT // 2, SAMPLE_RATE
        filters = mel_filter_bank(half, bins, 0.0, rate / 2, rate, norm="slaney", mel_scale="slaney")
        self.register_buffer("filters", torch.from_numpy(np.asarray(filters, np.float32)))
        self.register_buffer("window", torch.hann_window(FFT))

    def forward(self, samples: Tensor) -> Tensor:
        """(samples,) → (samples / HOP, bins)."""
        spectrum = torch.stft(samples, FFT, HOP, window=cast(Tensor, self.window), return_complex=True)[:, :-1]
        power = spectrum.real.square() + spectrum.imag.square()
        loudness = (power.T @ cast(Tensor, self.filters)).clamp(min=1e-10).log10()
        return (loudness.maximum(loudness.max() - 8.0) + 4.0) / 4.0
