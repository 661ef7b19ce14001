"""noodle drain · events · node show: emptying a node, what happened to the cluster, and one node in full."""

from __future__ import annotations

import json as json_text
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noodle_ray.entry.cli.bars import spark
from noodle_ray.entry.cli.output import AsJson, console, plain, print_json, print_table
from noodle_ray.entry.cli.progress import shown_progress
from noodle_ray.entry.cli.wording import age, clock, count_of, read_seconds, what_it_has
from noodle_ray.errors import Conflict, DeadlineExceeded, NotFound
from noodle_ray.nodes.event_log import ClusterEvent
from noodle_ray.nodes.membership import Node
from noodle_ray.nodes.metrics import ResourceMetrics
from noodle_ray.placement.allocation import Allocation

if TYPE_CHECKING:
    from noodle_ray.entry.client import Cluster

NodeName = Annotated[str, typer.Argument(help="A node's id, or the start of it, or its name.")]

LOOK_S = 0.5
"""How often a node that is drained is looked at."""

GRACE_S = 60.0
"""How long after the deadline a node may take to be empty, until the command gives up waiting."""

POLL_S = 30.0
SPARK_WIDTH = 60


def add_commands(app: typer.Typer, node: typer.Typer) -> None:
    app.command()(drain)
    app.command()(events)
    node.command("show")(show)


# -- what others show of a node


def find_node(nodes: Sequence[Node], given: str) -> Node:
    """The node of that name or address, or whose id begins so. Raises NotFound, also where several do.

    A dead one is meant only where no living one is.
    """
    found = [node for node in nodes if given in (node.name, node.address) or node.id.startswith(given)]
    found = [node for node in found if node.state != "dead"] or found
    if len(found) != 1:
        raise NotFound("node" if not found else "single node", given, [f"{n.name} ({n.id[:8]})" for n in nodes])
    return found[0]


def is_drained(node: Node) -> bool:
    """Whether its last draining has ended."""
    words = [change.state for change in node.history if change.state in ("draining", "drained")]
    return node.drain_until is not None and words[-1:] == ["drained"]


def state_of(node: Node) -> str:
    """In words: "alive", "draining", "suspect, cordoned"."""
    draining = "" if node.drain_until is None else "drained" if is_drained(node) else "draining"
    health = "" if draining and node.state == "alive" else node.state
    return ", ".join(word for word in (health, draining, "cordoned" if node.cordoned else "") if word)


def reason_of(node: Node) -> str:
    """Why it is suspect, dead or draining; "" where it is none of that."""
    words = {*state_of(node).split(", ")} - {"alive", "cordoned"}
    return next((change.reason for change in reversed(node.history) if change.state in words), "")


# -- draining


def drain(
    node: NodeName,
    deadline: Annotated[str, typer.Option(help="How long what runs there has to move: 60, 60s, 5m, 1h.")] = "60s",
    wait: Annotated[bool, typer.Option(help="Wait until the node is empty.")] = True,
    json: AsJson = False,
) -> None:
    """Empty a node: place nothing new there, move what is movable, end the rest at the deadline."""
    from noodle_ray.entry.client import connect

    deadline_s = read_seconds("deadline", deadline, 86_400)
    with connect() as cluster:
        found = find_node(cluster.nodes(), node)
        there = _on_node(cluster, found.id)
        drained = cluster.drain(found.id, deadline_s)
        if not json:
            _print_fates(drained, there, deadline_s)
        outcome = _wait_until_empty(cluster, drained, deadline_s) if wait else state_of(drained)
    if json:
        print_json({"node": drained, "allocations": there, "outcome": outcome})
    else:
        console.print(f"{drained.name} ({drained.id[:8]}) is {outcome}", highlight=False)


def _on_node(cluster: Cluster, node_id: str) -> list[Allocation]:
    """What is there, or has its second home there."""
    return [one for one in cluster.allocations() if node_id in one.node_ids or _has_spare_on(one, node_id)]


def _has_spare_on(allocation: Allocation, node_id: str) -> bool:
    spare = allocation.spare
    return spare is not None and any(bundle.node_id == node_id for bundle in spare.bundles)


def _print_fates(node: Node, there: Sequence[Allocation], deadline_s: float) -> None:
    rows = [[one.id, one.state, str(one.request), one.owner or "-", fate(one, node.id)] for one in there]
    title = f"On {node.name}, to be empty within {age(deadline_s)}"
    print_table(title, ["allocation", "state", "demand", "owner", "what becomes of it"], rows, empty="nothing")


def fate(allocation: Allocation, node_id: str) -> str:
    """What draining the node means for an allocation that is there."""
    if node_id not in allocation.node_ids:
        return "its second home is here"
    if allocation.request.movable or allocation.on_loss == "standby":
        return "moves, where there is room for it"
    return "ends at the deadline" if allocation.on_loss == "fail" else "is held anew elsewhere at the deadline"


def _wait_until_empty(cluster: Cluster, node: Node, deadline_s: float) -> str:
    """What became of the node. Raises Conflict where it was opened again, DeadlineExceeded where it does not end."""
    give_up = time.monotonic() + deadline_s + GRACE_S
    with shown_progress() as say:
        shown = ""
        while (outcome := _outcome(cluster, node)) is None:
            if time.monotonic() > give_up:
                raise DeadlineExceeded(f"draining {node.name}", (deadline_s + GRACE_S) * 1000)
            shown = _say_if_new(say, f"{count_of(len(_on_node(cluster, node.id)), 'allocation')} left", shown)
            time.sleep(LOOK_S)
    return outcome


def _say_if_new(say: Callable[[str], None], line: str, shown: str) -> str:
    if line != shown:
        say(line)
    return line


def _outcome(cluster: Cluster, node: Node) -> str | None:
    """None while it is on its way."""
    try:
        now = cluster.node(node.id)
    except NotFound:
        return "drained, and has left"
    if now.drain_until is None:
        raise Conflict(f"{node.name} was opened again: it is not drained any more")
    return state_of(now) if is_drained(now) or now.state == "dead" else None


# -- what happened


def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until interrupted.")] = False,
    json: AsJson = False,
) -> None:
    """Print what happened to nodes and allocations of late; with --json one object a line."""
    from noodle_ray.entry.client import connect

    with connect() as cluster, suppress(KeyboardInterrupt):
        last = _print_events(cluster.events(), json, 0)
        while follow:
            last = _print_events(cluster.events(last, POLL_S), json, last)


def _print_events(happened: Sequence[ClusterEvent], json: bool, last: int) -> int:
    for event in happened:
        if json:
            sys.stdout.write(json_text.dumps(plain(event)) + "\n")
        else:
            console.print(f"{clock(event.at)}  {event.kind:<20} {event.message}", highlight=False, markup=False)
        last = event.number
    sys.stdout.flush()
    return last


# -- one node


def show(node: NodeName, json: AsJson = False) -> None:
    """Show a node: its states with times and reasons, what is on it, and its load of late."""
    from noodle_ray.entry.client import connect

    with connect() as cluster:
        found = find_node(cluster.nodes(), node)
        there, measured = _on_node(cluster, found.id), cluster.node_metrics(found.id)
    if json:
        print_json({"node": found, "allocations": there, "metrics": measured})
        return
    _print_node(found)
    _print_load(measured)
    rows: list[list[Any]] = [[clock(change.at), change.state, change.reason] for change in found.history]
    print_table("History", ["at", "state", "because"], rows)
    rows = [[one.id, one.state, str(one.request), one.on_loss, one.owner or "-"] for one in there]
    print_table("Allocations", ["allocation", "state", "demand", "on loss", "owner"], rows)


def _print_node(node: Node) -> None:
    why = f" ({reason_of(node)})" if reason_of(node) else ""
    lines = [f"{node.name}  {state_of(node)}{why}", f"  id       {node.id}", f"  address  {node.address}"]
    lines += [f"  has      {what_it_has(node.resources)}", f"  joined   {clock(node.joined_at)}"]
    lines += [] if node.drain_until is None else [f"  empty by {clock(node.drain_until)}"]
    for line in lines:
        console.print(line, highlight=False, markup=False)


def _print_load(measured: Sequence[ResourceMetrics]) -> None:
    if not measured:
        console.print("  load     not measured yet", highlight=False)
        return
    for name, ratios in (
        ("CPU", [one.cpu_used_ratio for one in measured]),
        ("memory", [one.memory_used_ratio for one in measured]),
    ):
        console.print(f"  {name:<8} {spark(ratios, SPARK_WIDTH)} {ratios[-1]:.0%}", highlight=False)
    seconds = measured[-1].taken_at - measured[max(len(measured) - SPARK_WIDTH, 0)].taken_at
    console.print(f"  {'':<8} the last {age(seconds)}", highlight=False, style="dim")
