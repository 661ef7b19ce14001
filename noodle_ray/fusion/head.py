"""A head: labels that a user taught, told from what the encoders made of the input, in plain numpy.

Each source is a few affine layers over one modality's reading (Cox 1958, multinomial logistic regression, where there
is one), and a Rule weighs the sources. On disk a head is `<name>.json` (what it is) and `<name>.safetensors` (weights).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from noodle_ray.base_model import Model, faults_of
from noodle_ray.errors import CorruptData, InvalidInput, NotFound
from noodle_ray.fusion.reading import Reading, Vector
from noodle_ray.fusion.rule import Rule, Scores, modality_of

HeadName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Part = Literal["features", "embedding"]
PARTS: tuple[Part, ...] = ("features", "embedding")
AGAIN = "train it again with `noodle fusion train`"


class Named(Model):
    """The name alone, to be checked before hours of work."""

    name: HeadName


class HeadSource(Model):
    """What one source of a head looks at: the parts of a reading, joined, of one version of an encoder."""

    encoder: str
    parts: tuple[Part, ...]
    width: Annotated[int, Field(gt=0)]


class HeadDescription(Named):
    """Everything of a head but its weights. `trained` documents data, split, seed and figures."""

    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    sources: Annotated[dict[str, HeadSource], Field(min_length=1)]
    rule: Rule
    trained: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Layer:
    """weights: (outputs, inputs) and bias: (outputs,); after every layer but the last, what is negative becomes 0."""

    weights: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Head:
    """A trained head. `layers` by source. Satisfies the engine's port for classifiers."""

    description: HeadDescription
    layers: Mapping[str, tuple[Layer, ...]]

    @property
    def labels(self) -> Sequence[str]:
        return self.description.labels

    @property
    def rule(self) -> Rule:
        return self.description.rule

    def scores(self, readings: Mapping[str, Reading]) -> dict[str, Scores]:
        """By source, a logit for each label; modalities that the head does not know are left out.

        Raises InvalidInput for readings of encoders that it was not trained with.
        """
        return {
            source: logits(self.layers[source], self._vector(source, readings[modality_of(source)]))
            for source in self.description.sources
            if modality_of(source) in readings
        }

    def _vector(self, source: str, reading: Reading) -> Vector:
        looked_at = self.description.sources[source]
        modality = modality_of(source)
        if reading.encoder != looked_at.encoder:
            problem = f"the head {self.description.name} was trained with {looked_at.encoder}; {AGAIN}"
            raise InvalidInput.of(modality, problem, reading.encoder)
        vector = joined(reading, looked_at.parts)
        if vector is None or len(vector) != looked_at.width:
            width = 0 if vector is None else len(vector)
            problem = f"the head {self.description.name} looks at {looked_at.width} numbers, not {width}; {AGAIN}"
            raise InvalidInput.of(modality, problem)
        return vector

    def save(self, folder: Path) -> None:
        """Writes `<name>.json` and `<name>.safetensors`: the same head gives the same bytes."""
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / f"{self.description.name}.safetensors", save(_tensors(self.layers)))
        # The description comes last: a head without one is not there.
        text = self.description.model_dump_json(indent=2) + "\n"
        _replace(folder / f"{self.description.name}.json", text.encode())

    @classmethod
    def load(cls, folder: Path, name: str) -> Head:
        """Raises NotFound for an unknown name, CorruptData for damaged files."""
        known = known_heads(folder)
        if name not in known:
            raise NotFound("head", name, known)
        path = folder / f"{name}.json"
        try:
            description = HeadDescription.model_validate_json(path.read_bytes())
            tensors = load((folder / f"{name}.safetensors").read_bytes())
            return cls(description, _layers(description, tensors))
        except ValidationError as error:
            raise CorruptData(f"{path} is damaged ({'; '.join(map(str, faults_of(error)))}); {AGAIN}") from None
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise CorruptData(f"{folder / name}.safetensors is damaged ({reason}); {AGAIN}") from None


def known_heads(folder: Path) -> list[str]:
    """The names of the heads in a folder."""
    return sorted(path.stem for path in folder.glob("*.json")) if folder.is_dir() else []


def joined(reading: Reading, parts: Sequence[Part]) -> Vector | None:
    """The parts of a reading as one vector; None where it lacks one of them."""
    vectors = [getattr(reading, part) for part in parts]
    if any(vector is None for vector in vectors):
        return None
    return np.concatenate(vectors).astype(np.float32)


def logits(layers: Sequence[Layer], vector: npt.ArrayLike) -> Scores:
    """(..., inputs) → (..., labels), in double precision: batches and single rows agree to the last digits."""
    values = np.asarray(vector, np.float64)
    for index, layer in enumerate(layers):
        values = (np.maximum(values, 0.0) if index else values) @ layer.weights.T.astype(np.float64) + layer.bias
    return values


def _tensors(layers: Mapping[str, Sequence[Layer]]) -> dict[str, npt.NDArray[np.float32]]:
    return {
        f"{source}/{index}/{part}": np.ascontiguousarray(getattr(layer, part), np.float32)
        for source in sorted(layers)
        for index, layer in enumerate(layers[source])
        for part in ("weights", "bias")
    }


def _layers(
    description: HeadDescription, tensors: Mapping[str, npt.NDArray[np.float32]]
) -> dict[str, tuple[Layer, ...]]:
    return {source: _checked(description, source, tensors) for source in description.sources}


def _checked(
    description: HeadDescription, source: str, tensors: Mapping[str, npt.NDArray[np.float32]]
) -> tuple[Layer, ...]:
    count = sum(name.startswith(f"{source}/") for name in tensors) // 2
    layers = tuple(
        Layer(tensors[f"{source}/{index}/weights"], tensors[f"{source}/{index}/bias"]) for index in range(count)
    )
    widths = [description.sources[source].width, *(len(layer.bias) for layer in layers)]
    shapes = [layer.weights.shape for layer in layers]
    if shapes != list(zip(widths[1:], widths[:-1], strict=True)) or widths[-1] != len(description.labels) or not count:
        raise ValueError(f"the layers of {source} have the wrong shapes: {shapes}")
    return layers


def _replace(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.draft")
    draft.write_bytes(data)
    draft.replace(path)
