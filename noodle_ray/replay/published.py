"""Published results: the GPU allocation that others measured on these traces, to be printed beside ours."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from noodle_ray.errors import InvalidInput
from noodle_ray.replay.traces import MOST_FAULTS, only_file, read_rows

POLICY_NAMES = {
    "01-Random": "random",
    "02-DotProd": "dot-product",
    "03-GpuClustering": "clustering",
    "04-GpuPacking": "gpu-packing",
    "05-BestFit": "best-fit",
    "06-FGD": "fgd",
}
"""The published policies by their names there, and what they are called here."""

LAST_LEVEL = 130

_FILE = "analysis_allo_discrete.csv*"
_LEVELS = [str(level) for level in range(LAST_LEVEL + 1)]


@dataclass(frozen=True, slots=True)
class Figure:
    """GPU allocation in % of capacity: mean and standard deviation (of the sample) over `seeds` runs."""

    mean: float
    deviation: float
    seeds: int


@dataclass(frozen=True, slots=True)
class Published:
    """Runs by trace ("default", …) and policy (in our names), each a matrix of seeds x levels 0 to 130, in %.

    Source: Weng et al., "Beware of Fragmentation", USENIX ATC 2023, `experiments/analysis/expected_results`.
    """

    runs: Mapping[tuple[str, str], NDArray[np.float64]] = field(default_factory=dict)

    def allocation(self, trace: str, policy: str, at: int) -> Figure | None:
        """What was allocated when `at` % of capacity had been asked for; None where nothing was published."""
        runs = self.runs.get((trace, policy))
        if runs is None or not 0 <= at <= LAST_LEVEL:
            return None
        values = runs[:, at]
        deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        return Figure(float(values.mean()), deviation, len(values))


def read_published(directory: Path) -> Published:
    """Reads `analysis_allo_discrete.csv` (or `.csv.gz`) from a directory or below it; empty where there is none.

    Policies that have no name here are left out. Raises InvalidInput where the file is malformed or there are several.
    """
    files = sorted(path for path in directory.rglob(_FILE) if path.is_file())
    if not files:
        return Published()
    path = only_file(files, "file of published results")
    runs: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    for row in read_rows(path, ("workload", "sc_policy", *_LEVELS)):
        if policy := POLICY_NAMES.get(row.text("sc_policy")):
            trace = row.text("workload").removeprefix("openb_pod_list_")
            runs[trace, policy].append([row.number(level, most=100) for level in _LEVELS])
        if row.faults:
            raise InvalidInput(row.faults[:MOST_FAULTS], str(path))
    return Published({key: np.array(values) for key, values in runs.items()})
