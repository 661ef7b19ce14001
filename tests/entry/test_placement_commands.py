"""`noodle plan` on a described fleet, and what top, defrag and explain draw, as a person reads them on 100 columns."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text
from typer.testing import CliRunner, Result

from noodle_ray.entry.cli import explaining, output, plan_report
from noodle_ray.entry.cli import placement as commands
from noodle_ray.entry.cli.bars import bar
from noodle_ray.entry.cli.frame import frame
from noodle_ray.entry.cli.main import app
from noodle_ray.entry.cli.wording import age, names_in_short, ranges
from noodle_ray.errors import InvalidInput, NotFound
from noodle_ray.nodes.membership import Node
from noodle_ray.nodes.overview import Overview, Use
from noodle_ray.nodes.snapshot import Snapshot
from noodle_ray.placement.allocation import Allocation
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.planner import Planner
from noodle_ray.placement.request import Request
from noodle_ray.placement.workload import Workload
from noodle_ray.resources import Demand, NodeResources

DOCUMENT = """
fleet:
  - {name: big, count: 2, cpus: 16, memory: 64GiB, gpus: 2, accelerator_type: A100}
  - {name: small, cpus: 4, memory: 8GiB}
requests:
  - {name: share, count: 4, gpu_share: 0.5}
  - {name: pair, count: 2, gpus: 2, priority: 5}
  - {name: giant, gpus: 8}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., Result]:
    def call(text: str, *arguments: str) -> Result:
        (tmp_path / "demands.yaml").write_text(text)
        return CliRunner().invoke(app, ["plan", str(tmp_path / "demands.yaml"), *arguments])

    return call


def test_a_plan_as_json(plan: Callable[..., Result]) -> None:
    result = json.loads(plan(DOCUMENT, "--json", "--policy", "best-fit").stdout)
    assert result["policy"] == "best-fit"
    placed = {one["name"]: [bundle["node_id"] for bundle in one["bundles"]] for one in result["outcomes"]}
    assert {*placed["pair-1"], *placed["pair-2"]} == {"big-1", "big-2"}
    assert placed["share-1"] == placed["giant"] == []
    assert [one["name"] for one in result["outcomes"] if one["never"]] == ["giant"]
    assert [(one["like"], one["placed"]) for one in result["growth"]] == [
        ("big-1", ["share-1", "share-2", "share-3", "share-4"]),
        ("small", []),
    ]


def test_a_plan_for_people(plan: Callable[..., Result], drawn: Callable[[], str]) -> None:
    assert plan(DOCUMENT).exit_code == 0
    shown = drawn()
    assert "2 of 7 requests would run, 4 would wait, 1 can never run" in shown
    assert "policy noodle, the described fleet: 3 nodes" in shown
    assert "pair-1…2" in shown
    assert "(GPU 0-1)" in shown
    assert line_with("share-1…4", shown).split()[-3:] != []
    assert "4 more" in line_with("big-1 (2 alike)", shown)
    assert "no more" in line_with("small (1 alike)", shown)


@pytest.mark.parametrize(
    ("text", "arguments", "error", "says"),
    [
        ("requests: 3", (), InvalidInput, "requests: "),
        (DOCUMENT, ("--policy", "cleverest"), NotFound, "no policy 'cleverest'; known: best-fit"),
        (DOCUMENT + "policy: wild", (), NotFound, "no policy 'wild'"),
    ],
)
def test_a_bad_plan_is_refused(
    plan: Callable[..., Result], text: str, arguments: tuple[str, ...], error: type[Exception], says: str
) -> None:
    raised = plan(text, *arguments).exception
    assert isinstance(raised, error)
    assert says in str(raised)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    raised = CliRunner().invoke(app, ["plan", str(tmp_path / "x.yaml")]).exception
    assert isinstance(raised, InvalidInput)
    assert "no text in UTF-8" in str(raised)


def test_defrag_does_not_pretend_to_move_anything() -> None:
    raised = CliRunner().invoke(app, ["defrag"]).exception
    assert isinstance(raised, InvalidInput)
    assert "give --dry-run" in str(raised)


# -- on a snapshot


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """What has been printed, on 100 columns."""
    console = Console(width=100, record=True, file=StringIO())
    for module in (output, explaining, plan_report, commands):
        monkeypatch.setattr(module, "console", console)
    return lambda: console.export_text(clear=False)


def line_with(text: str, shown: str) -> str:
    return next(line for line in shown.splitlines() if text in line)


def allocation(key: str, state: Any, request: Request, **more: Any) -> Allocation:
    return Allocation(
        **{"id": key, "epoch": 1, "state": state, "request": request, "policy": "noodle", "created_at": 0.0, **more}
    )


def snapshot() -> Snapshot:
    """Two half-used GPUs on two nodes, of which one can be moved onto the other, and one who waits."""
    pool = ResourcePool()
    resources = NodeResources.of(cpus=8, memory="16GiB", gpus=1, accelerator_type="L4")
    half = Request(bundles=(Demand(gpu_share=0.5, cpus=2),), movable=True)
    allocations = []
    for number in (1, 2):
        pool.add_node(f"id-{number}", resources)
        bundles = pool.allocate(f"half-{number}", [(f"id-{number}", half.bundles[0])])
        allocations.append(allocation(f"half-{number}", "held", half, bundles=bundles))
    pool.earmark(["id-1"], "whole")
    whole = Request(bundles=(Demand(gpus=1),))
    allocations.append(allocation("whole", "waiting", whole, priority=3, waits_for="gpus fails on 2 of 2 (best: 0)"))
    nodes = [
        Node(id=f"id-{n}", name=f"node-{n}", address="x", resources=resources, joined_at=0.0, heard_at=0.0)
        for n in (1, 2)
    ]
    return Snapshot(tuple(nodes), pool, Workload(), tuple(allocations), at=90.0)


def draw(overview: Overview, width: int = 100, height: int | None = None) -> str:
    console = Console(width=width, record=True, file=StringIO())
    console.print(frame(overview, width, height))
    return console.export_text()


def test_a_frame_shows_nodes_gpus_fragmentation_and_the_queue() -> None:
    shown = draw(Overview.of(snapshot()))
    assert "1 of 2 GPU held 50.0%" in shown
    assert "queue 1" in shown
    assert line_with("node-1", shown).split() == [
        "node-1",
        "kept",
        "██······",
        "2/8",
        "?",
        "········",
        "0/16GiB",
        "?",
        "L4",
        "███···",
    ]
    waiting = line_with("whole", shown)
    assert waiting.split()[:5] == ["1", "whole", "3", "1", "min"]
    assert "kept for it: node-1" in shown
    assert all(len(line.rstrip()) <= 100 for line in shown.splitlines())


def test_a_frame_says_which_nodes_are_leaving() -> None:
    before = snapshot()
    draining = before.nodes[0].model_copy(update={"drain_until": 99.0})
    cordoned = before.nodes[1].model_copy(update={"cordoned": True})
    shown = draw(Overview.of(replace(before, nodes=(draining, cordoned))))
    assert "node-1 draining kept" in shown
    assert "node-2 cordoned" in shown


def test_a_frame_fits_its_terminal() -> None:
    one = Overview.of(snapshot())
    gpus = tuple(Use(total=1, held=0.5, others=0.5) for _ in range(8))
    load = one.nodes[0].model_copy(update={"gpus": gpus, "kept_for": None})
    many = one.model_copy(update={"nodes": (load,) * 200, "queue": one.queue * 50})
    shown = draw(many, width=100, height=40)
    assert len(shown.splitlines()) <= 40
    assert "… 178 more" in shown
    assert "██▒▒ ██▒▒" in shown
    assert "…" not in line_with("node-1", shown)


def test_bars_tell_without_colours() -> None:
    assert bar(Use(total=1, held=0.3, others=0.5), 4).plain == "█▎▒▒"
    assert bar(Use(total=1, held=1, others=0), 4).plain == "████"
    assert bar(Use(total=1, held=0.001, others=0.001), 4).plain == "▏▒··"
    assert bar(Use(total=1, held=0.9, others=0.9), 4).plain == "███▋"
    assert bar(Use(total=0, held=0, others=0), 4) == Text("    ")


def test_top_prints_a_frame_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, drawn: Callable[[], str]
) -> None:
    monkeypatch.setattr(commands, "_snapshot", snapshot)
    assert CliRunner().invoke(app, ["top"]).exit_code == 0
    assert "1 of 2 GPU held 50.0%" in drawn()
    queue = json.loads(CliRunner().invoke(app, ["top", "--json"]).stdout)["queue"]
    assert [one["id"] for one in queue] == ["whole"]


def test_top_draws_frame_after_frame_until_it_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def overviews(interval: float) -> Iterator[Overview]:
        yield Overview.of(snapshot())
        yield Overview.of(replace(snapshot(), at=150.0))
        raise KeyboardInterrupt

    screen = StringIO()
    monkeypatch.setattr(commands, "_overviews", overviews)
    monkeypatch.setattr(commands, "console", Console(width=100, height=30, file=screen, force_terminal=True))
    assert CliRunner().invoke(app, ["top", "--interval", "0.2"]).exit_code == 0
    assert [when in Text.from_ansi(screen.getvalue()).plain for when in ("1 min", "2 min", "3 min")] == [
        True,
        True,
        False,
    ]


def test_defrag_shows_moves_and_what_they_cost(monkeypatch: pytest.MonkeyPatch, drawn: Callable[[], str]) -> None:
    monkeypatch.setattr(commands, "_snapshot", snapshot)
    assert CliRunner().invoke(app, ["defrag", "--dry-run"]).exit_code == 0
    shown = drawn()
    assert line_with("half-1", shown).split()[-3:] == [
        "node-1",
        "node-2",
        "+0.60",
    ]  # node-1 is kept: nobody moves there
    assert "Costs 1 restart, of 2 that are movable, with 0.5 GPU" in shown
    found = json.loads(CliRunner().invoke(app, ["defrag", "--dry-run", "--json"]).stdout)
    assert found["fragmentation_before"] - found["fragmentation_after"] == pytest.approx(0.6, abs=1e-4)


def test_defrag_says_when_there_is_nothing_to_gain(monkeypatch: pytest.MonkeyPatch, drawn: Callable[[], str]) -> None:
    still = snapshot()
    still.pool.cordon("id-2", True)
    monkeypatch.setattr(commands, "_snapshot", lambda: still)
    CliRunner().invoke(app, ["defrag", "--dry-run"])
    assert "Nothing to move: none of the 1 movable allocation" in drawn()


def test_an_explanation_says_why_the_winner_won(drawn: Callable[[], str]) -> None:
    pool = snapshot().pool
    pool.earmark(["id-1"], None)
    pool.allocate("more", [("id-1", Demand(cpus=4))])
    found = Planner(pool).plan(Request(bundles=(Demand(gpu_share=0.5, cpus=3),)), "best-fit").explanation
    explaining.print_explanation(found, {"id-1": "node-1", "id-2": "node-2"})
    assert "2 considered, filtered out by cpus on 1" in drawn()
    assert "node-2 is the only node that could take it." in drawn()
    found = Planner(pool).plan(Request(bundles=(Demand(gpu_share=0.5, cpus=1),)), "best-fit").explanation
    explaining.print_explanation(found, {"id-1": "node-1", "id-2": "node-2"})
    assert "node-1 beats node-2 by 0.250: it costs less in cpus (0.062 against 0.312)." in drawn()


def test_what_waits_is_explained_by_its_place(drawn: Callable[[], str]) -> None:
    now = snapshot()
    explaining.print_allocation(now.allocation("whole"), now)
    shown = drawn()
    assert "1 of 1 in the queue, priority 3" in shown
    assert line_with("waits for", shown).split(maxsplit=2)[2].strip() == "gpus fails on 2 of 2 (best: 0)"
    assert line_with("kept for it", shown).split()[-1] == "node-1"


def test_wording() -> None:
    assert [age(seconds) for seconds in (0.4, 59, 60, 3_600, 200_000)] == ["0 s", "59 s", "1 min", "1 h", "2 d"]
    assert ranges([3, 0, 1, 2, 7, 7]) == "0-3, 7"
    assert names_in_short(["a-1", "a-2", "b", "a-4", "c-7"]) == "a-1…2, a-4, b, c-7"
