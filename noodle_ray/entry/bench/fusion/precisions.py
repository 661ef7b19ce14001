"""Every encoder in every precision, on the processor and on a GPU where there is one, beside itself in fp32."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from noodle_ray.entry.bench.fusion.mix import Mix, load_mix
from noodle_ray.entry.bench.fusion.rivals_encoders import decoded, given
from noodle_ray.entry.bench.report import Row
from noodle_ray.entry.bench.timing import percentile
from noodle_ray.entry.cli.output import print_table
from noodle_ray.fusion.reading import Reading
from noodle_ray.fusion_models.packs import Pack, load_pack
from noodle_ray.fusion_models.processors import load_warm, set_up_torch
from noodle_ray.fusion_models.quantised import FP32, INT8, PRECISIONS
from noodle_ray.settings import Settings

COUNT = 40
"""Items of each modality: those that the latency benchmark asks with."""
EXACT = ("cpu", FP32)

Item = tuple[Any, tuple[str, ...]]
"""What an encoder takes: content, and the candidates' texts."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One way to run an encoder, beside fp32 on the processor.

    ms: of each item. cosines: between the two embeddings of each. alike: how many items are said to be the same, by
    transcript or by name.
    """

    modality: str
    device: str
    precision: str
    ms: Sequence[float]
    cosines: Sequence[float]
    alike: int

    @property
    def alike_percent(self) -> float:
        return 100.0 * self.alike / len(self.ms)

    def rows(self) -> Iterator[Row]:
        context: dict[str, str | int | float] = {
            "modality": self.modality,
            "device": self.device,
            "precision": self.precision,
            "items": len(self.ms),
        }
        for percent in (50, 95):
            yield Row(metric=f"encode_ms_p{percent}", value=percentile(self.ms, percent), unit="ms", context=context)
        yield Row(metric="least_cosine", value=min(self.cosines), unit="", better="higher", context=context)
        yield Row(metric="alike_percent", value=self.alike_percent, unit="%", better="higher", context=context)


def measure(settings: Settings, progress: Callable[[str], None]) -> list[Compared]:
    """Reads the same items in each way, in a process set up as an encoder's is."""
    set_up_torch()
    pack, mix = load_pack(settings.pack, settings.cache_dir), load_mix(settings.cache_dir)
    compared = []
    for modality in pack.modalities:
        items = items_of(mix, modality)
        exact, _ = read(pack, modality, EXACT, items)
        for way in ways():
            progress(f"{modality}: {' '.join(way)}")
            readings, ms = read(pack, modality, way, items)
            compared.append(beside(modality, way, ms, exact, readings))
    return compared


def ways() -> list[tuple[str, str]]:
    """Devices that are here, with the precisions that they have."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return [(device, one) for device in devices for one in PRECISIONS if one != INT8 or device == "cpu"]


def items_of(mix: Mix, modality: str) -> list[Item]:
    questions = [mix.fields(number, (modality,)) for number in range(COUNT)]
    return [(decoded(modality, given(one)[modality]), tuple(one["candidates"])) for one in questions]


def read(pack: Pack, modality: str, way: tuple[str, str], items: Sequence[Item]) -> tuple[list[Reading], list[float]]:
    """Readings (they are on the processor, wherever they were made), and the milliseconds of each."""
    device, precision = way
    encoder = load_warm(pack, modality, precision, device)
    readings, ms = [], []
    for content, candidates in items:
        start = time.perf_counter()
        readings.append(encoder.encode(content, candidates))
        ms.append((time.perf_counter() - start) * 1000)
    return readings, ms


def beside(
    modality: str, way: tuple[str, str], ms: Sequence[float], exact: Sequence[Reading], readings: Sequence[Reading]
) -> Compared:
    pairs = list(zip(exact, readings, strict=True))
    cosines = [float(np.dot(one.embedding, other.embedding)) for one, other in pairs]  # type: ignore[arg-type]
    alike = sum(_said(one) == _said(other) for one, other in pairs)
    return Compared(modality, *way, ms, cosines, alike)


def _said(reading: Reading) -> str:
    """The transcript, or the likeliest name without its probability."""
    return reading.transcript or reading.seen.partition(" (")[0]


def show(compared: Sequence[Compared]) -> None:
    columns = ("modality", "device", "precision", "p50 ms", "p95", "least cosine", "alike %")
    print_table("encoders, beside fp32 on the processor", columns, map(_line, compared))


def _line(one: Compared) -> list[str]:
    ms = [f"{percentile(one.ms, percent):.1f}" for percent in (50, 95)]
    return [one.modality, one.device, one.precision, *ms, f"{min(one.cosines):.5f}", f"{one.alike_percent:.1f}"]
