"""The precisions in which a network can run, and linear layers put together so that each is called less often.

int8 is PyTorch's dynamic quantisation: weights are rounded once, for each output apart; activations at each call. fp16
on a CPU keeps the weights of linear layers in 16 bits and computes in 32: half as much is read from memory, and nothing
is lost that can be seen. The API of both is marked as deprecated in favour of a package that is not a dependency here;
torch is pinned, so it is there.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn

from noodle_ray.errors import InvalidInput

FP32, FP16, INT8, BF16 = "fp32", "fp16", "int8", "bf16"
PRECISIONS = (FP32, FP16, INT8, BF16)


def in_precision(model: nn.Module, precision: str = FP32, device: str = "cpu") -> nn.Module:
    """Brings the model into a precision and onto a device ("cpu", "cuda", "cuda:1"), in place, and gives it back.

    Raises InvalidInput for an unknown precision, for int8 elsewhere than on a CPU, and for a device that is not there.
    """
    check_precision(precision, device)
    if precision == INT8 or (precision == FP16 and device == "cpu"):
        return _with_small_linears(model, precision)
    return model.to(device=device, dtype=number_type(precision, device))


def number_type(precision: str, device: str) -> torch.dtype:
    """What a network computes in: of precisions that only make weights small, 32 bits."""
    if precision == BF16:
        return torch.bfloat16
    return torch.float16 if precision == FP16 and device != "cpu" else torch.float32


def check_precision(precision: str, device: str) -> None:
    """Raises InvalidInput where the two are not to be had here, alone or together."""
    if precision not in PRECISIONS:
        raise InvalidInput.of("precision", f"is none of {', '.join(PRECISIONS)}", precision)
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
        raise InvalidInput.of("device", "is none that torch finds here", device)
    if precision == INT8 and kind != "cpu":
        raise InvalidInput.of("precision", "int8 runs on the CPU only; bf16 is the fast one on a GPU", precision)


def _with_small_linears(model: nn.Module, precision: str) -> nn.Module:
    """Replaces every nn.Linear in the model, in place, and gives the model back."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.(ao|_tensor)")
        quantise = torch.ao.quantization
        small = {INT8: quantise.per_channel_dynamic_qconfig, FP16: quantise.float16_dynamic_qconfig}
        scheme = {nn.Linear: small[precision]}
        return cast(nn.Module, quantise.quantize_dynamic(model, scheme, inplace=True))  # type: ignore[no-untyped-call]


def stacked(parts: Sequence[Any]) -> nn.Linear:
    """One linear layer that gives the outputs of all of them, side by side: one call instead of many."""
    weights = torch.cat([part.weight for part in parts])
    result = nn.Linear(weights.shape[1], weights.shape[0])
    biases = [part.bias if part.bias is not None else torch.zeros(part.weight.shape[0]) for part in parts]
    with torch.no_grad():
        result.weight.copy_(weights)
        result.bias.copy_(torch.cat(biases))
    return result
