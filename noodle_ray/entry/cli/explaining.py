"""What `noodle explain` prints: why something is where it is, or what it waits for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from noodle_ray.entry.cli.output import console
from noodle_ray.entry.cli.wording import age, clock, count_of
from noodle_ray.nodes.snapshot import Snapshot
from noodle_ray.placement.allocation import Allocation
from noodle_ray.placement.explanation import Candidate, Explanation
from noodle_ray.placement.verdict import MEANINGS, Verdict

Names = Mapping[str, str]


def print_explanation(explanation: Explanation, names: Names) -> None:
    """The nodes that were considered, those that were left, and why the best of them is the best."""
    _print_facts([("policy", explanation.policy), ("nodes", _considered(explanation))])
    if not explanation.candidates:
        return
    _print_facts([("because", Verdict.of(explanation).sentence(names))])
    console.print()
    _print_candidates(explanation, names)


def print_allocation(allocation: Allocation, snapshot: Snapshot) -> None:
    """Who it is: for a waiting one, what it waits for."""
    since = f"{age(snapshot.at - allocation.created_at)} ago, at {clock(allocation.created_at)}"
    console.print(f"[bold]{escape(allocation.id)}[/bold] {allocation.state}, asked for {since}", highlight=False)
    facts = [("asks for", str(allocation.request)), ("owner", allocation.owner or "nobody")]
    _print_facts([*facts, *(_waiting(allocation, snapshot) if allocation.state == "waiting" else [])])


def _waiting(allocation: Allocation, snapshot: Snapshot) -> list[tuple[str, str]]:
    ids = [one.id for one in snapshot.waiting]
    kept = [snapshot.names.get(node, node) for node in snapshot.kept_for(allocation.id)]
    until = "never" if allocation.wait_until is None else f"at {clock(allocation.wait_until)}"
    return [
        ("place", f"{ids.index(allocation.id) + 1} of {len(ids)} in the queue, priority {allocation.priority}"),
        ("waits for", allocation.waits_for or "its turn"),
        ("kept for it", ", ".join(kept) or "no node yet"),
        ("gives up", until),
    ]


def _considered(explanation: Explanation) -> str:
    by_count = sorted(explanation.filtered.items(), key=lambda item: (-item[1], item[0]))
    filtered = ", ".join(f"{dimension} on {count}" for dimension, count in by_count)
    considered = f"{explanation.considered} considered"
    return f"{considered}, filtered out by {filtered}" if filtered else f"{considered}, none filtered out"


def _print_facts(facts: Sequence[tuple[str, str]]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", width=11)
    table.add_column(overflow="fold")
    for name, fact in facts:
        table.add_row(name, escape(fact))
    console.print(table)


def _print_candidates(explanation: Explanation, names: Names) -> None:
    """A column for each part of the score; the least of each stands out, where it is not the same everywhere."""
    parts = list(dict.fromkeys(name for one in explanation.candidates for name in one.parts))
    best = count_of(len(explanation.candidates), "node")
    console.print(
        f"[bold]The best {best}[/bold]: minus the score is what placing it there costs, in parts", highlight=False
    )
    table = Table(header_style="bold", box=None, pad_edge=False)
    table.add_column("")
    table.add_column("node", overflow="fold")
    for name in ("score", *parts):
        table.add_column(name, justify="right")
    for one in explanation.candidates:
        mark = "→" if one.node_id == explanation.chosen else ""
        table.add_row(mark, names.get(one.node_id, one.node_id[:8]), f"{one.score:.3f}", *_costs(one, explanation))
    console.print(table)
    for name in parts:
        if name in MEANINGS:
            console.print(Text(f"{name}: {MEANINGS[name]}", "dim"))


def _costs(candidate: Candidate, explanation: Explanation) -> list[Text]:
    cells = []
    for name, cost in candidate.parts.items():
        costs = [one.parts[name] for one in explanation.candidates]
        cells.append(Text(f"{cost:.3f}", "green" if cost == min(costs) < max(costs) else ""))
    return cells
