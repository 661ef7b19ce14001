"""Traces: nodes, pods and their order of arrival, read from directories in the openb CSV format."""

from __future__ import annotations

import csv
import gzip
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from noodle_ray.errors import Fault, InvalidInput, NotFound, shorten, shorten_path

T = TypeVar("T")

WHOLE_GPU_MILLI = 1000

MOST_FAULTS = 10
"""After so many faults the rest of a file is not looked at: a wrong file would fill the screen."""

_POD_FILE = re.compile(r"pod_list_(?P<name>.+?)\.csv(\.gz)?$")
_NODE_FILE = re.compile(r"node_list.*\.csv(\.gz)?$")
_GPU_NODE_FILE = re.compile(r"node_list_gpu_node.*\.csv(\.gz)?$")
_AMOUNT = re.compile(r"(\d{1,15})(\.0*)?", re.ASCII)
_MOST_GPUS = 1024
_MOST_ARRIVALS = 10_000_000


@dataclass(frozen=True, slots=True)
class TraceNode:
    """One machine: CPU in 1/1000, memory in MiB, whole GPUs, all of one `model` ("" where none is given)."""

    name: str
    cpu_milli: int
    memory_mib: int
    gpus: int
    model: str


@dataclass(frozen=True, slots=True)
class Pod:
    """One request: CPU in 1/1000, memory in MiB, `gpus` GPUs and `gpu_milli` 1/1000 of each of them.

    `gpu_milli` is 1000 where GPUs are wanted whole (always, for more than one) and 0 where none is wanted.
    `models` are the GPU models that will do; empty means any.
    """

    cpu_milli: int
    memory_mib: int
    gpus: int = 0
    gpu_milli: int = 0
    models: frozenset[str] = frozenset()

    @property
    def requested_milli(self) -> int:
        """GPU in all, in 1/1000 of one GPU."""
        return self.gpus * self.gpu_milli


@dataclass(frozen=True, slots=True)
class Traces:
    """What a directory holds: one file of nodes, and the files of pods by name ("default", "gpuspec33", …)."""

    nodes_file: Path
    pods: Mapping[str, Path]


def find_traces(directory: Path) -> Traces:
    """Looks for `*node_list*.csv` and `*pod_list_NAME*.csv` (or `.csv.gz`) in a directory and everything below it.

    Of several node files the one called `node_list_gpu_node` counts. Raises NotFound where the directory or a kind
    of file is missing, InvalidInput where it is ambiguous which file is meant.
    """
    if not directory.is_dir():
        raise NotFound("directory of traces", str(directory))
    files = sorted(path for path in directory.rglob("*") if path.is_file() and not path.name.startswith("."))
    named: dict[str, list[Path]] = {}
    for path in files:
        if match := _POD_FILE.search(path.name):
            named.setdefault(match["name"], []).append(path)
    if not named:
        raise NotFound("pod list (*pod_list_NAME.csv or .csv.gz) in", str(directory))
    pods = {name: only_file(paths, f"pod list {shorten(name)!r}") for name, paths in sorted(named.items())}
    return Traces(_nodes_file(files, directory), pods)


def _nodes_file(files: Sequence[Path], directory: Path) -> Path:
    every = [path for path in files if _NODE_FILE.search(path.name)]
    if not every:
        raise NotFound("node list (*node_list*.csv or .csv.gz) in", str(directory))
    return only_file([path for path in every if _GPU_NODE_FILE.search(path.name)] or every, "node list")


def only_file(paths: Sequence[Path], what: str) -> Path:
    """The one file there is. Raises InvalidInput with all of them where there are several."""
    if len(paths) > 1:
        listed = ", ".join(map(str, paths))
        raise InvalidInput.of("directory", f"must have exactly one {what}, has {len(paths)}: {listed}")
    return paths[0]


def read_nodes(path: Path) -> list[TraceNode]:
    """Reads `sn,cpu_milli,memory_mib,gpu,model`, plain or gzipped; other columns are ignored.

    Raises NotFound where the file is missing, InvalidInput with file, line, field and value where it is malformed.
    """
    nodes = read_all(path, ("sn", "cpu_milli", "memory_mib", "gpu", "model"), _node)
    twice = [name for name, times in Counter(node.name for node in nodes).items() if times > 1]
    if twice:
        faults = [Fault("sn", "must name one node only", shorten(name)) for name in twice[:MOST_FAULTS]]
        raise InvalidInput(faults, str(path))
    return nodes


def read_pods(path: Path) -> list[Pod]:
    """Reads `cpu_milli,memory_mib,num_gpu,gpu_milli` and, where there is one, `gpu_spec` ("A|B"; empty means any).

    Plain or gzipped; other columns are ignored. Raises NotFound where the file is missing, InvalidInput with file,
    line, field and value where it is malformed.
    """
    return read_all(path, ("cpu_milli", "memory_mib", "num_gpu", "gpu_milli"), _pod)


def arrivals(pods: Sequence[Pod], capacity_milli: int, seed: int, until: float = 1.3) -> list[int]:
    """Who arrives, in order, as indices into `pods`: all shuffled, then further ones drawn with replacement.

    Ends with the arrival whose cumulative request reaches `until` times `capacity_milli` (1/1000 of one GPU), be it
    within the shuffled list. A smaller `until` gives a prefix. Raises InvalidInput where it cannot be reached.
    Source: Weng et al., "Beware of Fragmentation", USENIX ATC 2023.
    """
    require_gpu_request(pods, capacity_milli)
    requested = np.array([pod.requested_milli for pod in pods], dtype=np.int64)
    if not 0 < until * capacity_milli / requested.mean() <= _MOST_ARRIVALS:
        raise InvalidInput.of("until", f"must be above 0 and reached within {_MOST_ARRIVALS} arrivals", until)
    target = math.ceil(until * capacity_milli - 1e-6)  # 1.3 times a whole number is often a hair too much
    rng = np.random.default_rng(seed)
    parts = [rng.permutation(len(pods))]
    reached = int(requested.sum())
    while reached < target:
        # Always as many at once as there are pods, so that the draws do not depend on `until`.
        parts.append(rng.integers(len(pods), size=len(pods)))
        reached += int(requested[parts[-1]].sum())
    order = np.concatenate(parts)
    last = int(np.searchsorted(np.cumsum(requested[order]), target))
    return [int(index) for index in order[: last + 1]]


def require_gpu_request(pods: Sequence[Pod], capacity_milli: int) -> None:
    """Raises InvalidInput where there is no GPU, or nobody asks for one: no level of request is ever reached then."""
    if capacity_milli <= 0:
        raise InvalidInput.of("nodes", "must have at least one GPU between them")
    if not any(pod.requested_milli for pod in pods):
        raise InvalidInput.of("pods", "at least one must ask for GPU (num_gpu of 1 or more)", f"{len(pods)} pods")


class Row:
    """One line of a file: its fields by name, and, as they are read, what is wrong with them."""

    def __init__(self, fields: Mapping[Any, object], line: int) -> None:
        self.fields, self.line = fields, line
        self.faults: list[Fault] = []
        if None in fields:
            self.refuse("row", "must not have more fields than the header", fields[None])

    def text(self, field: str) -> str:
        """The field without blanks around it; "" where the line has no such field."""
        value = self.fields.get(field)
        return value.strip() if isinstance(value, str) else ""

    def amount(self, field: str, least: int = 0, most: int = 10**15 - 1) -> int:
        """The field as a whole number; "8.0", as tables with gaps are often written, is one. Notes a fault."""
        match = _AMOUNT.fullmatch(self.text(field))
        value = int(match[1]) if match else -1
        if not least <= value <= most:
            self.refuse(field, f"must be a whole number from {least} to {most}", self.text(field) or "nothing")
        return value

    def number(self, field: str, least: float = 0.0, most: float = math.inf) -> float:
        """The field as a number. Notes a fault."""
        try:
            value = float(self.text(field))
        except ValueError:
            value = math.nan
        if not (least <= value <= most and math.isfinite(value)):
            limit = f"from {least:g}" + (f" to {most:g}" if math.isfinite(most) else "")
            self.refuse(field, f"must be a number {limit}", self.text(field) or "nothing")
        return value

    def refuse(self, field: str, problem: str, given: object) -> None:
        self.faults.append(Fault(f"line {self.line}, {field}", problem, shorten(given)))


def _node(row: Row) -> TraceNode:
    if not row.text("sn"):
        row.refuse("sn", "must be a name", "nothing")
    cpu, memory = row.amount("cpu_milli"), row.amount("memory_mib")
    return TraceNode(row.text("sn"), cpu, memory, row.amount("gpu", most=_MOST_GPUS), row.text("model"))


def _pod(row: Row) -> Pod:
    cpu, memory = row.amount("cpu_milli"), row.amount("memory_mib")
    gpus = row.amount("num_gpu", most=_MOST_GPUS)
    # Several GPUs are always whole ones, and what is said about none means nothing.
    milli = row.amount("gpu_milli", 1, WHOLE_GPU_MILLI) if gpus == 1 else WHOLE_GPU_MILLI * (gpus > 1)
    models = frozenset(model.strip() for model in row.text("gpu_spec").split("|")) - {""}
    return Pod(cpu, memory, gpus, milli, models)


def read_all(path: Path, columns: Sequence[str], build: Callable[[Row], T]) -> list[T]:
    """Every row of a CSV file, built. Raises InvalidInput with the first faults found, NotFound for no file."""
    found: list[T] = []
    faults: list[Fault] = []
    for row in read_rows(path, columns):
        found.append(build(row))
        faults += row.faults
        if len(faults) >= MOST_FAULTS:
            break
    if faults or not found:
        raise InvalidInput(faults or [Fault("rows", "at least one is needed below the header")], str(path))
    return found


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """The lines of a CSV file below its header, one by one; a name that ends in .gz is gunzipped.

    Raises NotFound where there is no such file, InvalidInput where it lacks a column or cannot be read.
    """
    if not path.is_file():
        raise NotFound("file", shorten_path(path))
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True, strict=True)
            _require_columns(path, reader.fieldnames or (), columns)
            for fields in reader:
                yield Row(fields, reader.line_num)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput([Fault("file", f"must be readable as CSV: {shorten(str(error))}")], str(path)) from None


def _require_columns(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in header]
    if missing:
        needed = f"must have the columns {', '.join(columns)}; missing: {', '.join(missing)}"
        raise InvalidInput([Fault("line 1", needed, shorten(",".join(header)) or "nothing")], str(path))
