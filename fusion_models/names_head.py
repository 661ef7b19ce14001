"""The head that takes what is seen in a drawing to where the drawing's name lies in the space of sentences."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from noodle_ray.errors import CorruptData
from noodle_ray.fusion_models.files import sha256_of

HEAD = Path(__file__).parent / "heads" / "vision_names.safetensors"
"""The one that is shipped; its card is beside it."""
LEVELS = 127


@dataclass(frozen=True, slots=True)
class NamesHead:
    """Three linear maps with a GELU before the last one (Hendrycks and Gimpel 2016, "Gaussian Error Linear Units").

    blocks:    where each part of a description begins and ends; each has a map of its own in `reduce`.
    centre:    (described,): what is taken off first. `reduce`: (reduced, part) by block. `hide`: (hidden, all reduced),
               `place`: (384, hidden), each with its bias.
    sharpness: what cosines with names are multiplied with before the softmax.
    names:     those that were trained on, and their `places`: (names, 384).
    version:   the beginning of the file's sha256.
    """

    blocks: tuple[tuple[int, int], ...]
    centre: Tensor
    reduce: tuple[Tensor, ...]
    hide: tuple[Tensor, Tensor]
    place: tuple[Tensor, Tensor]
    sharpness: float
    names: tuple[str, ...]
    places: Tensor
    network: str
    version: str = ""

    def embed(self, described: Tensor) -> Tensor:
        """(n, described) to (n, 384) unit vectors in the space of sentences."""
        with torch.inference_mode():
            centred = described - self.centre
            pairs = zip(self.blocks, self.reduce, strict=True)
            reduced = torch.cat([centred[:, start:end] @ matrix.T for (start, end), matrix in pairs], 1)
            hidden = functional.gelu(functional.linear(reduced, *self.hide))
            return functional.normalize(functional.linear(hidden, *self.place), dim=1)

    def nearest(self, embedding: Tensor, count: int) -> tuple[Tensor, list[str]]:
        """Of one embedding: the probabilities of the likeliest known names, and these names, best first."""
        with torch.inference_mode():
            best = torch.softmax(self.sharpness * self.places @ embedding, 0).topk(min(count, len(self.names)))
        return best.values, [self.names[index] for index in best.indices]

    def save(self, path: Path, **facts: Any) -> None:
        """Writes 8 bits a weight, each row with a scale of its own; `facts` go into the file's metadata."""
        tensors = {"centre": self.centre, "hide.bias": self.hide[1], "place.bias": self.place[1]}
        matrices = {f"reduce.{number}": matrix for number, matrix in enumerate(self.reduce)}
        matrices |= {"hide": self.hide[0], "place": self.place[0], "places": self.places}
        for name, matrix in matrices.items():
            tensors[name], tensors[f"{name}.scale"] = rounded(matrix)
        own = {"blocks": self.blocks, "sharpness": self.sharpness, "names": self.names, "network": self.network}
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            path,
            {"head": json.dumps({**own, **facts})},
        )

    @classmethod
    def load(cls, path: Path = HEAD) -> NamesHead:
        """Raises CorruptData where the file is no such head."""
        try:
            with safe_open(path, "pt") as file:
                about = json.loads(file.metadata()["head"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            return _assembled(about, tensors, sha256_of(path)[:12])
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise CorruptData(f"{path} is no head for names of pictures: {error}") from error


def rounded(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, columns) as whole numbers of 8 bits, and (rows, 1) what to multiply them with."""
    scale = matrix.abs().amax(1, keepdim=True).clamp(min=1e-12) / LEVELS
    return (matrix / scale).round().to(torch.int8), scale


def _assembled(about: Mapping[str, Any], tensors: Mapping[str, Tensor], version: str) -> NamesHead:
    def matrix(name: str) -> Tensor:
        return tensors[name].float() * tensors[f"{name}.scale"]

    blocks = tuple((int(start), int(end)) for start, end in about["blocks"])
    return NamesHead(
        blocks=blocks,
        centre=tensors["centre"],
        reduce=tuple(matrix(f"reduce.{number}") for number in range(len(blocks))),
        hide=(matrix("hide"), tensors["hide.bias"]),
        place=(matrix("place"), tensors["place.bias"]),
        sharpness=float(about["sharpness"]),
        names=tuple(about["names"]),
        places=functional.normalize(matrix("places"), dim=1),
        network=about["network"],
        version=version,
    )
