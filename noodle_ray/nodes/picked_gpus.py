"""Which GPUs Ray gave to bundles, as a node's raylet writes it down.

The raylet dumps its table of resources into `debug_state.txt` of its log directory, every
RAY_debug_dump_period_milliseconds. Nothing else in Ray shows the GPUs of a bundle in which nothing runs yet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TABLE = re.compile(r'Local resources: \{"total":\{(.*?)\}, "available": \{(.*?)\}, "labels":\{(.*?)\}')
_BUNDLE = re.compile(r"GPU_group_(\d+)_([0-9a-f]{36}): \[([\d, ]+)\]")


@dataclass(frozen=True, slots=True, order=True)
class PickedGpus:
    """The GPUs of one bundle of the placement group with this id."""

    group_id: str
    bundle: int
    gpu_indices: tuple[int, ...]


def read_picked_gpus(text: str, node_id: str) -> frozenset[PickedGpus] | None:
    """All bundles with GPUs on the node. None where the text is another node's, or was read while it was written."""
    table = _TABLE.search(text)
    if table is None or f'"ray.io/node-id":"{node_id}"' not in table[3]:
        return None
    return frozenset(
        PickedGpus(group_id, int(bundle), _indices(amounts)) for bundle, group_id, amounts in _BUNDLE.findall(table[1])
    )


def _indices(amounts: str) -> tuple[int, ...]:
    """The places of the GPUs of which the bundle has some: "5000, 0, 10000" → 0 and 2."""
    return tuple(index for index, units in enumerate(amounts.split(",")) if int(units))
