"""Pictures in the space of sentences, either by the names of what a classifier sees or by a model with two towers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from noodle_ray.fusion.decoding import Pixels
from noodle_ray.fusion.reading import Matrix, Reading, Vector
from noodle_ray.fusion_models.descriptors import thumbnails
from noodle_ray.fusion_models.mobilenet import MobileNetV2, mobilenet_of
from noodle_ray.fusion_models.pretrained import from_pretrained

RESIZED, CROPPED = 256, 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MIXED_CLASSES = 10
"""ConSE's T: how many of the best classes are mixed."""
NAMED_CLASSES = 3


def prepared(pixels: Pixels) -> Tensor:
    """(1, 3, 224, 224): the shorter side to 256, the middle 224 x 224, normalised as ImageNet's training did."""
    image = Image.fromarray(pixels)
    scale = RESIZED / min(image.size)
    size = (max(CROPPED, round(image.width * scale)), max(CROPPED, round(image.height * scale)))
    left, top = (size[0] - CROPPED) // 2, (size[1] - CROPPED) // 2
    image = image.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + CROPPED, top + CROPPED))
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255.0
    return ((values - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None])[None]


class ClassMixtureEncoder:
    """ConSE (Norouzi et al. 2014, "Zero-Shot Learning by Convex Combination of Semantic Embeddings").

    A picture lies at the mean of its likeliest classes' names, weighted by their probabilities.
    names: the classes' names, for people. places: (classes, width) unit vectors of the names in the anchor space.
    A reading's features are the network's pooled states and the picture's thumbnails.
    """

    def __init__(self, network: MobileNetV2, names: Sequence[str], places: Tensor, version: str) -> None:
        self._network, self._names, self._places, self._version = network, names, places, version

    @classmethod
    def load(cls, directory: Path, version: str) -> ClassMixtureEncoder:
        network = mobilenet_of(load_file(directory / "model.safetensors"))
        names = json.loads((directory / "classes.json").read_text())
        return cls(network, names, load_file(directory / "class_embeddings.safetensors")["embeddings"], version)

    def classify(self, pixels: Pixels) -> list[tuple[str, float]]:
        """The likeliest classes' names with their probabilities, best first."""
        values, indices = self._best(self._pooled(pixels))
        return [(self._names[index], float(value)) for value, index in zip(values, indices, strict=True)]

    def encode(self, content: Pixels, candidates: tuple[str, ...] = ()) -> Reading:
        pooled = self._pooled(content)
        values, indices = self._best(pooled)
        with torch.inference_mode():
            unit = functional.normalize(values @ self._places[indices], dim=0)
        named = zip(values[:NAMED_CLASSES], indices[:NAMED_CLASSES], strict=True)
        seen = ", ".join(f"{self._names[index]} ({float(value):.0%})" for value, index in named)
        features = np.concatenate([pooled.numpy(), thumbnails(content)])
        return Reading(self._version, seen, float(values[0]), np.asarray(unit.numpy(), np.float32), features=features)

    def features(self, content: Pixels) -> Vector:
        """A reading's features alone."""
        return np.concatenate([self._pooled(content).numpy(), thumbnails(content)])

    def _pooled(self, pixels: Pixels) -> Tensor:
        """(1280,): what the network's last convolution makes of the picture, on average over its places."""
        with torch.inference_mode():
            picture = prepared(pixels).contiguous(memory_format=torch.channels_last)
            pooled: Tensor = self._network.features(picture).mean((2, 3))[0]
        return pooled

    def _best(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities and indices of the likeliest classes, best first."""
        with torch.inference_mode():
            best = torch.softmax(self._network.classifier(pooled), 0).topk(min(MIXED_CLASSES, len(self._names)))
        return best.values, best.indices


class TwoTowerModel:
    """A CLIP-like model: pictures and texts in one space. Loaded from a directory or a hub id."""

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any) -> None:
        self._model, self._tokenizer, self._images = model.eval(), tokenizer, image_processor

    @classmethod
    def load(cls, source: str | Path, **where: Any) -> TwoTowerModel:
        parts = ("AutoModel", "AutoTokenizer", "AutoImageProcessor")
        return cls(*(from_pretrained(part, source, **where) for part in parts))

    @property
    def width(self) -> int:
        return int(self._model.config.projection_dim)

    @property
    def sharpness(self) -> float:
        """What the model was trained to multiply cosines with before the softmax."""
        return float(self._model.logit_scale.detach().exp())

    def embed(self, texts: Sequence[str]) -> Matrix:
        """(n, width) unit vectors of texts."""
        if not texts:
            return np.zeros((0, self.width), np.float32)
        with torch.inference_mode():
            batch = self._tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
            return _unit_rows(self._model.get_text_features(**batch))

    def embed_picture(self, pixels: Pixels) -> Matrix:
        """(1, width): the picture's unit vector."""
        with torch.inference_mode():
            batch = self._images(images=Image.fromarray(pixels), return_tensors="pt")
            return _unit_rows(self._model.get_image_features(**batch))


def _unit_rows(features: Any) -> Matrix:
    # Depending on the model this is the tensor itself or an output that holds it.
    rows = features if isinstance(features, Tensor) else features.pooler_output
    return np.asarray(functional.normalize(rows.float(), dim=1).numpy(), np.float32)


class TwoTowerEncoder:
    """Reads pictures with a two-tower model, which scores the candidates with its own text tower.

    `anchored`: whether the pack's texts are placed by the same model, so that the embedding can be joined.
    """

    scores_texts = True

    def __init__(self, model: TwoTowerModel, version: str, anchored: bool) -> None:
        self._model, self._version, self._anchored = model, version, anchored

    def encode(self, content: Pixels, candidates: tuple[str, ...] = ()) -> Reading:
        vector = self._model.embed_picture(content)[0]
        height, width = content.shape[:2]
        scores, seen, certainty = None, f"a picture of {width} x {height} pixels", 1.0
        if candidates:
            scores = self._model.embed(candidates) @ vector * np.float32(self._model.sharpness)
            seen = f"closest to {candidates[int(scores.argmax())]!r}"
        return Reading(self._version, seen, certainty, vector if self._anchored else None, scores)
