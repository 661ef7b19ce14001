"""Amounts: what a node has and what work asks for, as integers in Ray's own granularity."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator

from noodle_ray.base_model import Model

UNITS = 10_000
"""Parts of one CPU, one GPU or one custom resource: Ray's own granularity, so freeing restores exactly."""

ACCELERATOR_LABEL = "ray.io/accelerator-type"
"""Ray's own node label for the accelerator type: a selector on it is a condition on the type."""

_BYTES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_BYTES_PATTERN = re.compile(r"(\d+(?:\.\d+)?)\s*(Ki|Mi|Gi|Ti|K|M|G|T)?B?", re.ASCII)
_BYTES_LIMIT = 2**60


def parse_bytes(value: object) -> object:
    """Reads "2GiB", "512 MB" or a plain number of bytes; leaves anything else to the type check."""
    if not isinstance(value, str):
        return value
    match = _BYTES_PATTERN.fullmatch(value.strip())
    if match is None:
        raise ValueError('must be a number of bytes, or one with a unit such as "512MB" or "2GiB"')
    return int(float(match[1]) * _BYTES[match[2] or ""])


def format_bytes(amount: int) -> str:
    """The amount with a binary unit, at most one decimal: 2147483648 → "2GiB"."""
    size = float(amount)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.1f}".removesuffix(".0") + unit
        size /= 1024
    return f"{size:.1f}".removesuffix(".0") + "TiB"


def to_units(amount: float) -> int:
    return round(amount * UNITS)


def from_units(units: int) -> float:
    """Units as a number a person reads and Ray accepts: 15000 → 1.5."""
    return units / UNITS


Bytes = Annotated[int, Field(ge=0, le=_BYTES_LIMIT), BeforeValidator(parse_bytes, json_schema_input_type=int | str)]
Amount = Annotated[float, Field(ge=0, le=1_000_000)]
LabelName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")]
LabelValue = Annotated[str, Field(max_length=253)]


class Demand(Model):
    """What one piece of work asks for, on one node.

    `cpus` and `custom` are multiples of 0.0001; `memory` is bytes or a string such as "2GiB". GPUs are asked for
    either whole (`gpus`) or as a share of one (`gpu_share`, strictly between 0 and 1), never both. `labels` are
    Ray label selectors: "value", "!value", "in(a,b)" or "!in(a,b)". Raises InvalidInput.
    """

    cpus: Amount = 0.0
    memory: Bytes = 0
    gpus: Annotated[int, Field(ge=0, le=1024)] = 0
    gpu_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    accelerator_type: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    labels: dict[LabelName, LabelValue] = Field(default_factory=dict)
    custom: dict[LabelName, Amount] = Field(default_factory=dict)

    @field_validator("cpus", "gpu_share")
    @classmethod
    def _is_a_multiple(cls, value: float | None) -> float | None:
        if value is not None:
            _require_multiple(value)
        return value

    @field_validator("custom")
    @classmethod
    def _are_multiples(cls, value: dict[str, float]) -> dict[str, float]:
        for name, amount in value.items():
            _require_multiple(amount)
            if name in ("CPU", "GPU", "memory", "object_store_memory"):
                raise ValueError(f"{name} has a field of its own")
        return value

    @field_validator("labels")
    @classmethod
    def _are_selectors(cls, value: dict[str, str]) -> dict[str, str]:
        for selector in value.values():
            LabelSelector.read(selector)
        return value

    @model_validator(mode="after")
    def _asks_for_one_thing(self) -> Demand:
        if self.gpus and self.gpu_share is not None:
            raise ValueError("ask for whole gpus or for a gpu_share, not both")
        if not (self.cpus or self.memory or self.gpus or self.gpu_share or self.custom):
            raise ValueError("asks for nothing: give cpus, memory, gpus, gpu_share or custom")
        return self

    @property
    def cpu_units(self) -> int:
        return to_units(self.cpus)

    @property
    def gpu_units(self) -> int:
        """Units on each GPU touched: a share's, or a whole one's; 0 where no GPU is wanted."""
        if self.gpu_share is not None:
            return to_units(self.gpu_share)
        return UNITS if self.gpus else 0

    @property
    def gpu_count(self) -> int:
        """How many GPUs are touched."""
        return 1 if self.gpu_share is not None else self.gpus

    @property
    def custom_units(self) -> dict[str, int]:
        return {name: to_units(amount) for name, amount in self.custom.items()}

    def ray_resources(self) -> dict[str, float]:
        """The demand as one Ray placement-group bundle."""
        bundle: dict[str, float] = {name: amount for name, amount in sorted(self.custom.items()) if amount}
        if self.cpus:
            bundle["CPU"] = self.cpus
        if self.gpu_count:
            bundle["GPU"] = self.gpu_share or float(self.gpus)
        if self.memory:
            bundle["memory"] = self.memory
        return bundle

    def __str__(self) -> str:
        parts = [f"{self.cpus:g} CPU"] if self.cpus else []
        parts += [f"{format_bytes(self.memory)} memory"] if self.memory else []
        parts += [f"{self.gpu_share:g} of one GPU"] if self.gpu_share else []
        parts += [f"{self.gpus} GPU"] if self.gpus else []
        parts += [f"{amount:g} {name}" for name, amount in sorted(self.custom.items())]
        parts += [f"on {self.accelerator_type}"] if self.accelerator_type else []
        parts += [f"where {name}={value}" for name, value in sorted(self.labels.items())]
        return ", ".join(parts)


def _require_multiple(value: float) -> None:
    if abs(value * UNITS - round(value * UNITS)) > 1e-6:
        raise ValueError(f"must be a multiple of {1 / UNITS:g}")


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """One condition on a label in Ray's syntax: "v", "!v", "in(v,w)", "!in(v,w)"."""

    values: frozenset[str]
    negated: bool

    @classmethod
    def read(cls, text: str) -> LabelSelector:
        negated = text.startswith("!")
        body = text.removeprefix("!")
        if body.startswith("in(") and body.endswith(")"):
            values = [value.strip() for value in body[3:-1].split(",")]
            if not all(values):
                raise ValueError(f"{text!r} has an empty value in its list")
        elif "(" in body or ")" in body or "," in body:
            raise ValueError(f'{text!r} is no label selector: use "v", "!v", "in(v,w)" or "!in(v,w)"')
        else:
            values = [body]
        return cls(frozenset(values), negated)

    def matches(self, value: str | None) -> bool:
        """Whether a node with this label value (None where it has no such label) satisfies the condition."""
        return (value in self.values) != self.negated


@dataclass(frozen=True, slots=True)
class NodeResources:
    """What a node has in all. `cpu_units` and `custom_units` in 1/10,000, memory in bytes, GPUs whole."""

    cpu_units: int = 0
    memory_bytes: int = 0
    gpus: int = 0
    accelerator_type: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    custom_units: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, cpus: float = 0, memory: str | int = 0, gpus: int = 0, **more: Any) -> NodeResources:
        """The same from a person's amounts: `NodeResources.of(cpus=8, memory="32GiB", gpus=2)`."""
        return cls(to_units(cpus), int(parse_bytes(memory)), gpus, **more)  # type: ignore[call-overload]

    def to_json(self) -> dict[str, Any]:
        return {
            "cpus": from_units(self.cpu_units),
            "memory_bytes": self.memory_bytes,
            "gpus": self.gpus,
            "accelerator_type": self.accelerator_type,
            "labels": dict(self.labels),
            "custom": {name: from_units(units) for name, units in self.custom_units.items()},
        }


@dataclass(frozen=True, slots=True)
class Shortfall:
    """One dimension in which a node is short of a demand; amounts in the dimension's own unit, as text."""

    dimension: str
    wanted: str
    available: str

    def __str__(self) -> str:
        return f"{self.dimension}: wants {self.wanted}, has {self.available}"
