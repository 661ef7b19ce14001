"""Pictures in the space of sentences: by the names of what a classifier sees, by a learned projection, or by a model
with two towers."""

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
from noodle_ray.fusion_models.names_head import NamesHead
from noodle_ray.fusion_models.pictures import PictureNetwork, Sight, flat_share
from noodle_ray.fusion_models.pretrained import from_pretrained

MIXED_CLASSES = 10
"""ConSE's T: how many of the best classes are mixed."""
NAMED = 3
DRAWN = "drawing"
"""The kind of a reading that goes by the head: its cosines have a scale of their own."""
PHOTOGRAPH, DRAWING = 0.2, 0.4
"""Up to this share of flat places a picture counts as photographed, from this one on as drawn; between, as both in
part. Of the views that the head was trained on 99 in 100 have .39 or more, of unchanged drawings all .5 or more."""


class ClassMixtureEncoder:
    """ConSE (Norouzi et al. 2014, "Zero-Shot Learning by Convex Combination of Semantic Embeddings").

    A picture lies at the mean of its likeliest classes' names, weighted by their probabilities.
    names: the classes' names, for people. places: (classes, width) unit vectors of the names in the anchor space.
    A reading's features are the network's pooled states and the picture's thumbnails.
    """

    def __init__(self, network: PictureNetwork, names: Sequence[str], places: Tensor, version: str) -> None:
        self._network, self._names, self._places, self._version = network, names, places, version

    @classmethod
    def load(cls, directory: Path, version: str, precision: str = "fp32", device: str = "cpu") -> ClassMixtureEncoder:
        """From a pack's folder. Raises InvalidInput for an unknown precision."""
        network = PictureNetwork.load(directory, precision, device)
        names = json.loads((directory / "classes.json").read_text())
        return cls(network, names, load_file(directory / "class_embeddings.safetensors")["embeddings"], version)

    def classify(self, pixels: Pixels) -> list[tuple[str, float]]:
        """The likeliest classes' names with their probabilities, best first."""
        values, indices = self._best(self._network.see([pixels]).logits[0])
        return [(self._names[index], float(value)) for value, index in zip(values, indices, strict=True)]

    def encode(self, content: Pixels, candidates: tuple[str, ...] = ()) -> Reading:
        return self.encode_many([content])[0]

    def features(self, content: Pixels) -> Vector:
        """A reading's features alone."""
        return np.concatenate([self._network.see([content]).pooled[0].numpy(), thumbnails(content)])

    def encode_many(self, contents: Sequence[Pixels]) -> list[Reading]:
        """Several pictures: as one by one, bit by bit on a processor, elsewhere but for rounding (1e-4)."""
        if not contents:
            return []
        sight = self._network.see(contents)
        return [self._read(content, sight, row) for row, content in enumerate(contents)]

    def _read(self, content: Pixels, sight: Sight, row: int) -> Reading:
        values, indices = self._best(sight.logits[row])
        features = np.concatenate([sight.pooled[row].numpy(), thumbnails(content)])
        unit = np.asarray(self._mixed(values, indices).numpy(), np.float32)
        seen = named(values, [self._names[index] for index in indices])
        return Reading(self._version, seen, float(values[0]), unit, features=features)

    def _mixed(self, values: Tensor, indices: Tensor) -> Tensor:
        return functional.normalize(values @ self._places[indices], dim=0)

    def _best(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities and indices of the likeliest classes, best first."""
        best = torch.softmax(logits, 0).topk(min(MIXED_CLASSES, len(self._names)))
        return best.values, best.indices


def named(probabilities: Tensor, names: Sequence[str]) -> str:
    """For people: the first few names with their probabilities."""
    pairs = zip(names[:NAMED], probabilities[:NAMED], strict=True)
    return ", ".join(f"{name} ({float(value):.0%})" for name, value in pairs)


class LearnedProjectionEncoder(ClassMixtureEncoder):
    """Drawings by a head that was trained on drawings with names, photographs by their classes' names.

    The more of a picture is flat, the more it counts as drawn: the two vectors are mixed by that.
    """

    def __init__(
        self, network: PictureNetwork, names: Sequence[str], places: Tensor, version: str, head: NamesHead
    ) -> None:
        super().__init__(network, names, places, f"{version}+names/{head.version}")
        self._head = head

    @classmethod
    def load_with(
        cls, head: NamesHead, directory: Path, version: str, precision: str = "fp32", device: str = "cpu"
    ) -> LearnedProjectionEncoder:
        """As `load`, with a head. Raises InvalidInput for an unknown precision."""
        plain = ClassMixtureEncoder.load(directory, version, precision, device)
        return cls(plain._network, plain._names, plain._places, version, head)

    def _read(self, content: Pixels, sight: Sight, row: int) -> Reading:
        photographed = super()._read(content, sight, row)
        if not (share := drawn_share(content)):
            return photographed
        embedding = self._head.embed(sight.described[row : row + 1])[0]
        values, names = self._head.nearest(embedding, NAMED)
        mixed = functional.normalize(share * embedding + (1 - share) * torch.from_numpy(photographed.embedding), dim=0)
        return Reading(
            self._version,
            named(values, names) if share > 0.5 else photographed.seen,
            share * float(values[0]) + (1 - share) * photographed.certainty,
            np.asarray(mixed.numpy(), np.float32),
            features=photographed.features,
            kind=DRAWN if share > 0.5 else "",
        )


def drawn_share(pixels: Pixels) -> float:
    """0 for a photograph, 1 for a drawing."""
    return min(max((flat_share(pixels) - PHOTOGRAPH) / (DRAWING - PHOTOGRAPH), 0.0), 1.0)


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
