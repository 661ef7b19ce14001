"""One frame of `noodle top`: the cluster on as many columns and lines as there are."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from noodle_ray.entry.cli.bars import bar, bars, legend
from noodle_ray.entry.cli.wording import age, count_of
from noodle_ray.nodes.overview import NodeLoad, Overview, Use, Waiting
from noodle_ray.resources import format_bytes

_BAR = 8
"""Cells of the bars for CPUs and memory."""

_GPU_BAR_AT_MOST = 6
_TITLES = ("node", "CPU", "busy", "memory", "busy", "type")
_LINES_AROUND = 8
"""Lines of a frame that are neither nodes nor queue."""


def frame(overview: Overview, width: int, height: int | None = None) -> Group:
    """The whole picture; `height` None: as many lines as it takes."""
    waiting = len(overview.queue)
    lines = None if height is None else max(height - _LINES_AROUND, 4)
    for_queue = waiting if lines is None else min(waiting, max(lines // 3, lines - len(overview.nodes), 1))
    for_nodes = len(overview.nodes) if lines is None else lines - for_queue
    return Group(
        _headline(overview), Text(), *_nodes(overview.nodes, for_nodes, width), Text(), *_queue(overview, for_queue)
    )


def _headline(overview: Overview) -> Text:
    scarce = "gpus" if overview.totals["gpus"]["total"] else "cpus"
    amounts, unit = overview.totals[scarce], "GPU" if scarce == "gpus" else "CPU"
    clock = time.strftime("%H:%M:%S", time.localtime(overview.at))
    ratio = overview.allocation_ratio
    held = f"{amounts['held']:g} of {amounts['total']:g} {unit} held"
    return Text("   ").join(
        [
            Text(f"noodle-ray {clock}", "bold"),
            Text(count_of(len(overview.nodes), "node")),
            Text.assemble(held, (f" {ratio:.1%}", "bold green" if ratio >= 0.9 else "bold")),
            Text.assemble("fragmented ", (f"{overview.fragmented_gpus:.2f} GPU", "bold")),
            Text.assemble("queue ", (f"{len(overview.queue)}", "bold red" if overview.queue else "bold")),
        ]
    )


def _nodes(nodes: Sequence[NodeLoad], most: int, width: int) -> list[RenderableType]:
    shown = nodes[:most]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in (*_TITLES, "GPUs"):
        table.add_column(title, no_wrap=True, justify="right" if title == "busy" else "left")
    cells = [[_name(node), *_amounts(node), _kind(node)] for node in shown]
    taken = [max(len(cell) for cell in (title, *column)) + 2 for title, *column in zip(_TITLES, *cells, strict=True)]
    gpu_bar = _gpu_bar(shown, width - sum(taken))
    for node, row in zip(shown, cells, strict=True):
        table.add_row(*row, bars(node.gpus, gpu_bar))
    more = [Text(f"… {len(nodes) - most} more", "dim")] if len(nodes) > most else []
    footnote = [Text("* pretended: declared by hand", "dim")] if any(node.pretended for node in shown) else []
    return [table, *more, Text.assemble(legend(), "   ", *footnote)]


def _gpu_bar(nodes: Sequence[NodeLoad], width: int) -> int:
    """Cells for each GPU, so that the node with the most of them fits."""
    most = max((len(node.gpus) for node in nodes), default=0)
    return max(1, min(_GPU_BAR_AT_MOST, (width + 1) // max(most, 1) - 1))


def _name(node: NodeLoad) -> Text:
    marks: list[str] = [node.state] if node.state != "alive" else []
    marks += ["draining"] if node.draining else ["cordoned"] if node.cordoned else []
    marks += ["kept"] if node.kept_for else []
    return Text.assemble(node.name, (f" {' '.join(marks)}" if marks else "", "red"))


def _amounts(node: NodeLoad) -> list[Text]:
    return [
        _bar_with_amounts(node.cpus, f"{node.cpus.held + node.cpus.others:g}/{node.cpus.total:g}"),
        _percent(node.cpu_used_ratio),
        _bar_with_amounts(node.memory_bytes, _memory(node.memory_bytes)),
        _percent(node.memory_used_ratio),
    ]


def _bar_with_amounts(use: Use, amounts: str) -> Text:
    return Text.assemble(bar(use, _BAR), f" {amounts}") if use.total else Text("-", "dim")


def _memory(use: Use) -> str:
    """In the unit of the total, which is then not said twice: "232/512GiB"."""
    taken, total = int(use.held + use.others), format_bytes(int(use.total))
    unit = total.lstrip("0123456789.")
    return f"{format_bytes(taken).removesuffix(unit) if taken else 0}/{total}"


def _percent(ratio: float | None) -> Text:
    return Text("?" if ratio is None else f"{ratio:.0%}", "dim")


def _kind(node: NodeLoad) -> Text:
    if not node.gpus:
        return Text("-", "dim")
    return Text(f"{node.accelerator_type or 'GPU'}{' *' if node.pretended else ''}")


def _queue(overview: Overview, most: int) -> list[RenderableType]:
    if not overview.queue:
        return [Text.assemble(("Queue", "bold"), " nobody waits")]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("#", justify="right")
    table.add_column("waiting", no_wrap=True)
    table.add_column("prio", justify="right")
    table.add_column("since", no_wrap=True, justify="right")
    for title in ("wants", "waits for"):
        table.add_column(title, overflow="fold")
    for one in overview.queue[:most]:
        table.add_row(f"{one.position}", one.id, f"{one.priority}", age(one.waits_s), one.request, _waits_for(one))
    more = [Text(f"… {len(overview.queue) - most} more", "dim")] if len(overview.queue) > most else []
    return [table, *more]


def _waits_for(one: Waiting) -> Text:
    kept = f"; kept for it: {', '.join(one.kept)}" if one.kept else ""
    return Text.assemble(one.waits_for or "its turn", (kept, "cyan"))
