"""What MobileNetV2 sees in pictures: logits of its classes, and what its stages hold, pooled over places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from noodle_ray.fusion.decoding import Pixels
from noodle_ray.fusion_models.mobilenet import MobileNetV2, folded, mobilenet_of
from noodle_ray.fusion_models.quantised import check_precision, number_type

RESIZED, CROPPED = 256, 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TOGETHER = 16
"""Pictures in one pass on an accelerator. A processor's caches hold one: more together take it longer each."""
EARLY, MIDDLE, LATE = 6, 13, 17
"""The stages that are described beside the last one: 28 x 28, 14 x 14 and 7 x 7 places."""
DESCRIBED_WIDTH = 2 * 32 + 96 * 4 + 96 + 320 * 9 + 1280


def cropped(pixels: Pixels) -> Image.Image:
    """224 x 224: the shorter side to 256, then the middle."""
    image = Image.fromarray(pixels)
    scale = RESIZED / min(image.size)
    size = (max(CROPPED, round(image.width * scale)), max(CROPPED, round(image.height * scale)))
    left, top = (size[0] - CROPPED) // 2, (size[1] - CROPPED) // 2
    return image.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + CROPPED, top + CROPPED))


def normalised(image: Image.Image) -> Tensor:
    """(1, 3, height, width) of a picture in red, green and blue, as ImageNet's training normalised them."""
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255.0
    return ((values - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None])[None]


def prepared(pixels: Pixels) -> Tensor:
    """(1, 3, 224, 224): cropped and normalised."""
    return normalised(cropped(pixels))


def flat_share(pixels: Pixels) -> float:
    """0..1: the share of pixels that equal the ones to the right and below.

    Drawings have areas of one colour; in photographs there is noise.
    """
    if min(pixels.shape[:2]) < 2:
        return 1.0
    # Each colour by itself: three comparisons of planes take a quarter of the time of one with a short last axis.
    same = np.ones((pixels.shape[0] - 1, pixels.shape[1] - 1), np.bool_)
    for plane in np.ascontiguousarray(pixels.transpose(2, 0, 1)):
        here = plane[:-1, :-1]
        same &= (here == plane[1:, :-1]) & (here == plane[:-1, 1:])
    return float(same.mean())


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen in some pictures, a row each.

    logits: (n, classes). pooled: (n, 1280), the last stage's mean over its places: what the classifier looks at.
    described: (n, DESCRIBED_WIDTH): means over coarse places, and deviations, of earlier stages; and pooled.
    """

    logits: Tensor
    pooled: Tensor
    described: Tensor


class PictureNetwork:
    """MobileNetV2 on a device, in a precision. Many pictures are seen as each alone: bit by bit on a processor."""

    def __init__(self, network: MobileNetV2, precision: str = "fp32", device: str = "cpu") -> None:
        """Folds the network's norms, in place. Raises InvalidInput for an unknown precision."""
        check_precision(precision, device)
        self._kind, self._device = number_type(precision, device), device
        self._network = folded(network).to(device=device, dtype=self._kind)

    @classmethod
    def load(cls, directory: Path, precision: str = "fp32", device: str = "cpu") -> PictureNetwork:
        """From a pack's folder. Raises InvalidInput for an unknown precision."""
        return cls(mobilenet_of(load_file(directory / "model.safetensors")), precision, device)

    def see(self, pictures: Sequence[Pixels]) -> Sight:
        """Looks at pictures of any sizes, at least one."""
        return self.look(torch.cat([prepared(picture) for picture in pictures]))

    def look(self, batch: Tensor) -> Sight:
        """As `see`, at (n, 3, 224, 224) prepared pictures."""
        parts = [self._look(part) for part in torch.split(batch, 1 if self._device == "cpu" else TOGETHER)]
        columns = zip(*((part.logits, part.pooled, part.described) for part in parts), strict=True)
        return Sight(*(torch.cat(rows) for rows in columns))

    def _look(self, batch: Tensor) -> Sight:
        with torch.inference_mode():
            stages = self._network.stages(
                batch.to(self._device, self._kind).contiguous(memory_format=torch.channels_last)
            )
            kept = {number: _pooled(number, stage) for number, stage in enumerate(stages)}
            pooled = kept[max(kept)][0]
            logits = self._network.classifier(pooled)
            described = torch.cat([part for number in sorted(kept) for part in kept[number]], 1)
            return Sight(*(values.float().cpu() for values in (logits, pooled, described)))


def _pooled(number: int, stage: Tensor) -> list[Tensor]:
    """The parts of a stage's description, (n, width) each: the earlier, the less does it matter where."""
    if number == EARLY:
        return [stage.mean((2, 3)), stage.std((2, 3))]
    if number == MIDDLE:
        return [functional.adaptive_avg_pool2d(stage, 2).flatten(1), stage.std((2, 3))]
    if number == LATE:
        return [functional.adaptive_avg_pool2d(stage, 3).flatten(1)]
    return [stage.mean((2, 3))] if number == LATE + 1 else []
