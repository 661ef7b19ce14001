"""What `noodle plan` and `noodle defrag` print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby

from noodle_ray.entry.cli.output import console, print_table
from noodle_ray.entry.cli.wording import count_of, names_in_short, ranges, what_it_has
from noodle_ray.placement.defrag import Proposal
from noodle_ray.placement.dry_run import DryRun, Growth, Outcome
from noodle_ray.resources import format_bytes

Names = Mapping[str, str]


def print_plan(result: DryRun, fleet: str, names: Names) -> None:
    """`fleet` says which it is; `names`: what its nodes are called."""
    never = sum(outcome.never for outcome in result.unplaced)
    console.print(
        f"[bold]{len(result.placed)} of {count_of(len(result.outcomes), 'request')} would run[/bold], "
        f"{len(result.unplaced) - never} would wait, {never} can never run",
        highlight=False,
    )
    console.print(f"policy {result.policy}, {fleet}: {count_of(result.nodes, 'node')}\n", highlight=False, style="dim")
    _print_placed(result.placed, names)
    if result.unplaced:
        console.print()
        _print_unplaced(result.unplaced)
        console.print()
        _print_growth(result.growth, names)


def _print_placed(placed: Sequence[Outcome], names: Names) -> None:
    rows = [[*_what(alike), _where(alike, names)] for alike in _alike(placed)]
    print_table("What would run where", ["request", "prio", "asks for", "nodes"], rows, "nothing would run")


def _print_unplaced(unplaced: Sequence[Outcome]) -> None:
    rows = [[*_what(alike), "never" if alike[0].never else "waits", alike[0].reason] for alike in _alike(unplaced)]
    print_table("What would not run", ["request", "prio", "asks for", "", "because"], rows)


def _alike(outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    """Neighbours that ask for the same."""
    same = groupby(outcomes, key=lambda one: (one.priority, str(one.request), one.reason))
    return [list(run) for _, run in same]


def _what(alike: Sequence[Outcome]) -> list[str]:
    return [names_in_short([one.name for one in alike]), str(alike[0].priority), str(alike[0].request)]


def _where(alike: Sequence[Outcome], names: Names) -> str:
    """Each node with how many bundles it takes, and the GPUs on which they are."""
    bundles = [bundle for one in alike for bundle in one.bundles]
    counts = Counter(bundle.node_id for bundle in bundles)
    parts = []
    for node_id, count in counts.items():
        gpus = ranges(index for bundle in bundles if bundle.node_id == node_id for index in bundle.gpu_indices)
        parts.append(
            names.get(node_id, node_id) + (f" x{count}" if count > 1 else "") + (f" (GPU {gpus})" if gpus else "")
        )
    return ", ".join(parts)


def _print_growth(growth: Sequence[Growth], names: Names) -> None:
    rows = [
        [f"{names.get(one.like, one.like)} ({one.nodes} alike)", what_it_has(one.resources), *_gain(one)]
        for one in growth
    ]
    print_table("One more node", ["like", "has", "would run", "which"], rows)


def _gain(one: Growth) -> list[str]:
    return [f"{len(one.placed)} more" if one.placed else "no more", names_in_short(one.placed)]


def print_proposal(proposal: Proposal, names: Names) -> None:
    if not proposal.moves:
        console.print(
            f"Nothing to move: none of the {count_of(proposal.movable, 'movable allocation')} would make more GPU "
            f"usable elsewhere. Of the free GPU {proposal.usable_before:.2f} can be used, "
            f"{proposal.fragmentation_before:.2f} cannot.",
            highlight=False,
        )
        return
    rows = [
        [
            str(number),
            move.allocation_id,
            str(move.demand),
            *_way(move.source, move.target, names),
            f"+{move.gain_gpus:.2f}",
        ]
        for number, move in enumerate(proposal.moves, start=1)
    ]
    columns = ["#", "allocation", "holds", "from", "to", "GPU gained"]
    print_table("Moves, in this order (nothing is moved now)", columns, rows)
    console.print()
    _print_gain_and_cost(proposal)


def _way(source: str, target: str, names: Names) -> list[str]:
    return [names.get(source, source), names.get(target, target)]


def _print_gain_and_cost(proposal: Proposal) -> None:
    cost = proposal.cost
    rows = [
        ["usable", *_change(proposal.usable_before, proposal.usable_after)],
        ["fragmented", *_change(proposal.fragmentation_before, proposal.fragmentation_after)],
    ]
    print_table("Free GPU", ["", "now", "then", "change"], rows)
    console.print(
        f"Costs {count_of(cost.restarts, 'restart')}, of {proposal.movable} that are movable, with {cost.gpus:g} GPU "
        f"and {format_bytes(cost.memory_bytes)} of memory in all.",
        highlight=False,
    )


def _change(before: float, after: float) -> list[str]:
    return [f"{before:.2f}", f"{after:.2f}", f"{after - before:+.2f}"]
