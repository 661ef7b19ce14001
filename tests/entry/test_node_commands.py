"""noodle drain, events, node show and status over a cluster in memory, as a person and a program read them."""

import json
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from noodle_ray.entry import client
from noodle_ray.entry.cli import cluster as cluster_commands
from noodle_ray.entry.cli import nodes as commands
from noodle_ray.entry.cli import output, progress
from noodle_ray.entry.cli.bars import spark
from noodle_ray.entry.cli.main import app
from noodle_ray.entry.cli.wording import read_seconds
from noodle_ray.errors import Conflict, DeadlineExceeded, InvalidInput, NotFound
from noodle_ray.nodes.event_log import ClusterEvent, EventLog
from noodle_ray.nodes.membership import Node, StateChange
from noodle_ray.nodes.metrics import ResourceMetrics
from noodle_ray.placement.allocation import Allocation, Bundle, Spare
from noodle_ray.placement.request import Request
from noodle_ray.resources import Demand, NodeResources
from noodle_ray.store.health import StoreHealth

DEMAND = Demand(cpus=1)


def a_node(key: str, **fields: Any) -> Node:
    resources = NodeResources.of(cpus=8, memory="16GiB", gpus=1, accelerator_type="L4")
    given = {"id": f"id-{key}", "name": key, "address": "10.0.0.1", "resources": resources}
    return Node(**{**given, "joined_at": 0.0, "heard_at": 0.0, **fields})


def an_allocation(key: str, node_id: str, movable: bool = False, **fields: Any) -> Allocation:
    request = Request(bundles=(DEMAND,), movable=movable)
    given = {"id": key, "epoch": 1, "state": "held", "request": request, "policy": "noodle", "created_at": 0.0}
    return Allocation(**{**given, "bundles": (Bundle(demand=DEMAND, node_id=node_id),), **fields})


def changes(*states: str) -> tuple[StateChange, ...]:
    return tuple(StateChange(at=float(n), state=state, reason=f"why {state}") for n, state in enumerate(states))


class FakeCluster:
    """What the commands ask of a connected cluster. Each look at a node that is drained takes `script`'s next step."""

    def __init__(self) -> None:
        self.known = {name: a_node(name) for name in ("a", "b")}
        self.held = [an_allocation("x", "id-a"), an_allocation("y", "id-b")]
        self.script: list[Callable[[], None]] = []
        self.log = EventLog()
        self.drained: list[tuple[str, float]] = []
        self.store = StoreHealth()

    def __enter__(self) -> "FakeCluster":
        return self

    def __exit__(self, *error: object) -> None: ...

    def nodes(self) -> list[Node]:
        return list(self.known.values())

    def node(self, node_id: str) -> Node:
        if self.script:
            self.script.pop(0)()
        found = [node for node in self.known.values() if node.id == node_id]
        if not found:
            raise NotFound("node", node_id)
        return found[0]

    def allocations(self) -> list[Allocation]:
        return self.held

    def store_health(self) -> StoreHealth:
        return self.store

    def resources(self) -> dict[str, Any]:
        return {"allocation_ratio": 0.0}

    def node_metrics(self, node_id: str) -> list[ResourceMetrics]:
        sizes = {"memory_total_bytes": 100, "memory_used_bytes": 25, "disk_total_bytes": 1, "disk_used_bytes": 0}
        more = {"cpu_count": 8, "network_sent_bytes": 0, "network_received_bytes": 0}
        return [ResourceMetrics(cpu_used_ratio=n / 4, taken_at=30.0 * n, **sizes, **more) for n in range(5)]

    def drain(self, node_id: str, deadline_s: float) -> Node:
        self.drained.append((node_id, deadline_s))
        return self.set("a", drain_until=100.0, history=changes("draining"))

    def set(self, name: str, **fields: Any) -> Node:
        self.known[name] = self.known[name].model_copy(update=fields)
        return self.known[name]

    def empty(self, name: str) -> None:
        self.held = [one for one in self.held if one.node_id != f"id-{name}"]
        self.set(name, history=changes("draining", "drained"))

    def events(self, since: int = 0, wait_s: float = 0.0) -> list[ClusterEvent]:
        if wait_s and self.script:
            self.script.pop(0)()
        elif wait_s:
            raise KeyboardInterrupt
        return self.log.since(since)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    cluster = FakeCluster()
    monkeypatch.setattr(client, "connect", lambda: cluster)
    monkeypatch.setattr(commands, "LOOK_S", 0.0)
    return cluster


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """What has been printed, on 100 columns, errors and progress among it."""
    console = Console(width=100, record=True, file=StringIO())
    for module, name in (
        (output, "console"),
        (commands, "console"),
        (cluster_commands, "console"),
        (progress, "errors"),
    ):
        monkeypatch.setattr(module, name, console)
    return lambda: console.export_text(clear=False)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def line_with(text: str, shown: str) -> str:
    return next(line for line in shown.splitlines() if text in line)


def test_drain_waits_until_the_node_is_empty(cluster: FakeCluster, drawn: Callable[[], str]) -> None:
    cluster.script = [lambda: None, lambda: None, lambda: cluster.empty("a")]
    assert call("drain", "a", "--deadline", "5m").exit_code == 0
    assert cluster.drained == [("id-a", 300.0)]
    shown = drawn()
    assert "to be empty within 5 min" in shown
    assert line_with("x  ", shown).endswith("ends at the deadline")
    assert shown.count("1 allocation left") == 1
    assert shown.splitlines()[-1] == "a (id-a) is drained"


def test_drain_ends_when_the_node_has_left(cluster: FakeCluster, drawn: Callable[[], str]) -> None:
    cluster.script = [lambda: cluster.known.clear()]
    assert call("drain", "id-a").exit_code == 0
    assert drawn().splitlines()[-1] == "a (id-a) is drained, and has left"


def test_drain_says_when_it_is_called_off(cluster: FakeCluster, drawn: Callable[[], str]) -> None:
    cluster.script = [lambda: None, lambda: cluster.set("a", drain_until=None) and None]
    raised = call("drain", "a").exception
    assert isinstance(raised, Conflict)
    assert "opened again" in str(raised)


def test_drain_does_not_wait_for_ever(
    cluster: FakeCluster, drawn: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "GRACE_S", -1.0)
    assert isinstance(call("drain", "a", "--deadline", "0").exception, DeadlineExceeded)


def test_drain_need_not_wait(cluster: FakeCluster) -> None:
    result = json.loads(call("drain", "a", "--no-wait", "--json").stdout)
    assert (result["node"]["id"], result["outcome"]) == ("id-a", "draining")
    assert [one["id"] for one in result["allocations"]] == ["x"]


@pytest.mark.parametrize("given", ["c", "id-"])
def test_drain_wants_one_node(cluster: FakeCluster, given: str) -> None:
    raised = call("drain", given).exception
    assert isinstance(raised, NotFound)
    assert "a (id-a), b (id-b)" in str(raised)
    assert cluster.drained == []


def test_what_becomes_of_an_allocation() -> None:
    spare = Spare(epoch=2, bundles=(Bundle(demand=DEMAND, node_id="n"),))
    fates = {
        commands.fate(an_allocation("x", "n"), "n"),
        commands.fate(an_allocation("x", "n", on_loss="restart"), "n"),
        commands.fate(an_allocation("x", "n", on_loss="standby"), "n"),
        commands.fate(an_allocation("x", "n", movable=True), "n"),
        commands.fate(an_allocation("x", "m", spare=spare), "n"),
    }
    assert fates == {
        "ends at the deadline",
        "is held anew elsewhere at the deadline",
        "moves, where there is room for it",
        "its second home is here",
    }


@pytest.mark.parametrize(("text", "seconds"), [("60", 60), ("60s", 60), ("5m", 300), ("1.5h", 5400), ("0", 0)])
def test_durations(text: str, seconds: float) -> None:
    assert read_seconds("deadline", text, 86_400) == seconds


@pytest.mark.parametrize("text", ["", "-1", "soon", "5 weeks", "25h", "1e3", "nan"])
def test_wrong_durations(cluster: FakeCluster, text: str) -> None:
    raised = call("drain", "a", f"--deadline={text}").exception
    assert isinstance(raised, InvalidInput)
    assert raised.faults[0].field == "deadline"
    assert cluster.drained == []


def test_status_says_what_is_wrong_with_a_node(cluster: FakeCluster, drawn: Callable[[], str]) -> None:
    cluster.set("a", state="dead", history=changes("alive", "suspect", "dead"))
    cluster.set("b", drain_until=9.0, cordoned=True, history=changes("alive", "cordoned", "draining"))
    assert call("status").exit_code == 0
    shown = drawn()
    assert "a is dead: why dead" in shown
    assert "b is draining, cordoned: why draining" in shown


def test_status_says_nothing_of_nodes_and_a_store_that_are_well(cluster: FakeCluster, drawn: Callable[[], str]) -> None:
    cluster.set("a", history=changes("suspect", "alive"))
    call("status")
    shown = drawn()
    assert "why" not in shown and "store" not in shown


def test_status_says_that_the_store_is_away(cluster: FakeCluster, drawn: Callable[[], str]) -> None:
    cluster.store = StoreHealth(12.3, "it does not answer")
    assert call("status").exit_code == 0
    assert "The store has been away for 12 s: what changes waits for it. it does not answer" in drawn()
    told = json.loads(call("status", "--json").output)
    assert told["store"] == {"away_s": 12.3, "error": "it does not answer"}


def test_a_node_in_full(cluster: FakeCluster, drawn: Callable[[], str]) -> None:
    cluster.set("a", state="suspect", history=changes("alive", "suspect"))
    assert call("node", "show", "a").exit_code == 0
    shown = drawn()
    assert "a  suspect (why suspect)" in shown
    assert line_with("CPU  ", shown).split() == ["CPU", "▁▃▅▇█", "100%"]
    assert line_with("memory  ", shown).split() == ["memory", "▃▃▃▃▃", "25%"]
    assert "the last 2 min" in shown
    assert "why alive" in shown
    assert line_with("x  ", shown).split()[-2:] == ["fail", "-"]


def test_a_node_as_json(cluster: FakeCluster) -> None:
    found = json.loads(call("node", "show", "b", "--json").stdout)
    assert (found["node"]["name"], len(found["metrics"]), found["allocations"][0]["id"]) == ("b", 5, "y")


def test_events_are_printed(cluster: FakeCluster, drawn: Callable[[], str]) -> None:
    cluster.log.add("node_dead", "a is dead [at last]", {"node": "id-a"}, at=0.0)
    assert call("events").exit_code == 0
    assert drawn().splitlines()[-1].split()[2:] == ["node_dead", "a", "is", "dead", "[at", "last]"]


def test_events_are_followed_until_interrupted(cluster: FakeCluster) -> None:
    cluster.log.add("node_joined", "a joined", {"node": "id-a"}, at=0.0)
    cluster.script = [
        lambda: cluster.log.add("node_dead", "a is dead", {}, at=1.0) and None,
        lambda: None,
        lambda: cluster.log.add("node_left", "a left", {}, at=2.0) and None,
    ]
    result = call("events", "--follow", "--json")
    assert result.exit_code == 0
    happened = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["kind"] for event in happened] == ["node_joined", "node_dead", "node_left"]


def test_sparks() -> None:
    assert spark([0.0, 0.5, 1.0], 10) == "▁▅█"
    assert spark([0.0, 0.5, 1.0], 2) == "▅█"
