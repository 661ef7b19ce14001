"""Linear layers with 8-bit weights: a decoder that writes one token at a time reads a quarter of the bytes.

PyTorch's dynamic quantisation: weights are rounded once, for each output apart; activations at each call. The API is
marked as deprecated in favour of a package that is not a dependency here; torch is pinned, so it is there.
"""

from __future__ import annotations

import warnings
from typing import cast

import torch
from torch import nn


def with_int8_linears(model: nn.Module) -> nn.Module:
    """Replaces every nn.Linear in the model, in place, and gives the model back."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.(ao|_tensor)")
        quantise = torch.ao.quantization
        scheme = {nn.Linear: quantise.per_channel_dynamic_qconfig}
        return cast(nn.Module, quantise.quantize_dynamic(model, scheme, inplace=True))  # type: ignore[no-untyped-call]
