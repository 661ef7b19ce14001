"""What MobileNetV2 sees in pictures: the classes' probabilities, and what its stages hold, pooled over places."""

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

from noodle_ray.errors import InvalidInput
from noodle_ray.fusion.decoding import Pixels
from noodle_ray.fusion_models.mobilenet import MobileNetV2, folded, mobilenet_of

RESIZED, CROPPED = 256, 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
LARGEST_BATCH = 16
"""Pictures in one pass: more gain nothing, and each takes some 10 MB."""


def prepared(pixels: Pixels) -> Tensor:
    """(1, 3, 224, 224): the shorter side to 256, the middle 224 x 224, normalised as ImageNet's training did."""
    image = Image.fromarray(pixels)
    scale = RESIZED / min(image.size)
    size = (max(CROPPED, round(image.width * scale)), max(CROPPED, round(image.height * scale)))
    left, top = (size[0] - CROPPED) // 2, (size[1] - CROPPED) // 2
    return normalised(image.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + CROPPED, top + CROPPED)))


def normalised(image: Image.Image) -> Tensor:
    """(1, 3, height, width) of a picture in red, green and blue, with ImageNet's mean and deviation taken out."""
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255.0
    return ((values - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None])[None]


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen in some pictures, a row each.

    logits: (n, classes). pooled: (n, 1280), the last stage's mean over all places: what the classifier looks at.
    stages: (n, STAGES_WIDTH), see `described`.
    """

    logits: Tensor
    pooled: Tensor
    stages: Tensor


class PictureNetwork:
    """MobileNetV2 on a device, in a precision; the same for one picture and for many but for rounding (1e-4)."""

    def __init__(self, network: MobileNetV2, precision: str = "fp32", device: str = "cpu") -> None:
        """Folds the network's norms, in place. Raises InvalidInput for an unknown precision."""
        if precision not in PRECISIONS:
            raise InvalidInput.of("precision", f"is none of {', '.join(PRECISIONS)}", precision)
        self._kind, self._device = PRECISIONS[precision], device
        self._network = folded(network).to(device=device, dtype=self._kind)

    @classmethod
    def load(cls, directory: Path, precision: str = "fp32", device: str = "cpu") -> PictureNetwork:
        return cls(mobilenet_of(load_file(directory / "model.safetensors")), precision, device)

    def see(self, pictures: Sequence[Pixels]) -> Sight:
        """Looks at pictures of any sizes, at least one."""
        return self.look(torch.cat([prepared(picture) for picture in pictures]))

    def look(self, prepared_pictures: Tensor) -> Sight:
        """(n, 3, 224, 224), normalised."""
        parts = [self._batch(batch) for batch in prepared_pictures.split(LARGEST_BATCH)]
        columns = zip(*((part.logits, part.pooled, part.stages) for part in parts), strict=True)
        return Sight(*(torch.cat(rows) for rows in columns))

    def _batch(self, batch: Tensor) -> Sight:
        with torch.inference_mode():
            batch = batch.to(self._device, self._kind).contiguous(memory_format=torch.channels_last)
            stages = [stage if number in DESCRIBED else None for number, stage in enumerate(self._network.stages(batch))]
            last = next(self._network.stages(batch))
            pooled = last.mean((2, 3))
            logits = self._network.classifier(pooled)
            return Sight(logits.float().cpu(), pooled.float().cpu(), described(stages).float().cpu())
