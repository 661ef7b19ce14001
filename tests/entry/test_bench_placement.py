"""`noodle bench placement`: any directory of traces, a table, rows, pictures; the same figures whatever the jobs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from noodle_ray.entry.bench import placement_latency, placement_plots
from noodle_ray.entry.bench.placement import contest_of, measure
from noodle_ray.entry.bench.placement_rows import MEAN, rows_of
from noodle_ray.entry.cli.main import app
from noodle_ray.errors import InvalidInput, NoodleError, NotFound
from noodle_ray.replay.replay import LEVELS

PODS = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n"
Bench = Callable[..., Result]


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    """A directory that the bench has never seen: 6 nodes of 2 GPUs, two lists of pods, no published results."""
    directory = tmp_path / "mine"
    directory.mkdir()
    nodes = "".join(f"n{n},16000,65536,2,{'T4' if n % 2 else 'V100'}\n" for n in range(6))
    (directory / "my_node_list.csv").write_text("sn,cpu_milli,memory_mib,gpu,model\n" + nodes)
    mixed = "".join(f"p{n},{1000 + 500 * (n % 4)},1024,1,{(200, 500, 700, 1000)[n % 4]},\n" for n in range(24))
    (directory / "my_pod_list_mixed.csv").write_text(PODS + mixed + "c,500,10,0,0,\n")
    (directory / "my_pod_list_pairs.csv").write_text(PODS + "a,1000,1024,2,1000,\nb,1000,1024,2,1000,T4\n")
    return directory


def publish_results(directory: Path, value: float) -> None:
    """FGD's published results for both traces: the same at every level."""
    header = ",".join(["workload", "sc_policy", *map(str, range(LEVELS))])
    runs = [f"openb_pod_list_{trace},06-FGD{f',{value}' * LEVELS}" for trace in ("mixed", "pairs")]
    (directory / "analysis_allo_discrete.csv").write_text("\n".join([header, *runs, ""]))


@pytest.fixture
def bench(traces: Path) -> Bench:
    def call(*arguments: str, directory: Path | None = traces) -> Result:
        given = [] if directory is None else ["--traces", str(directory)]
        return CliRunner().invoke(app, ["bench", "placement", *given, "--jobs", "1", "--seeds", "2", *arguments])

    return call


def values(file: Path, metric: str, **context: Any) -> list[float]:
    rows = json.loads(file.read_text())["rows"]
    return [r["value"] for r in rows if r["metric"] == metric and context.items() <= r["context"].items()]


def error_of(result: Result) -> str:
    assert isinstance(result.exception, NoodleError)
    return str(result.exception)


def test_rows_for_every_trace_policy_and_level(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    result = bench("--policies", "noodle,ray-hybrid", "--at", "100,50", "--json", str(file))
    assert result.exit_code == 0, result.output
    written = json.loads(file.read_text())
    assert written["bench"] == "placement"
    allocated = [row for row in written["rows"] if row["metric"] == "gpu_allocated_percent"]
    assert [(r["context"]["trace"], r["context"]["policy"], r["context"]["at"]) for r in allocated] == [
        (trace, policy, at) for trace in ("mixed", "pairs") for at in (50, 100) for policy in ("noodle", "ray-hybrid")
    ]
    assert set(allocated[0]["context"]) == {"trace", "policy", "at", "moves", "seeds", "sd"}
    assert (allocated[0]["unit"], allocated[0]["better"], allocated[0]["context"]["seeds"]) == ("%", "higher", 2)
    assert all(row["goal"] is None for row in allocated)  # the goals are about the public traces
    bound = values(file, "bound_percent", trace="mixed", at=100)[0]
    found = values(file, "gpu_allocated_percent", trace="mixed", at=100, policy="noodle")[0]
    efficiency = values(file, "efficiency_percent", trace="mixed", at=100, policy="noodle")[0]
    assert efficiency == pytest.approx(100 * found / bound)


def test_pairs_on_six_nodes_by_hand(bench: Bench, tmp_path: Path) -> None:
    """Pairs fill a node each: with 12 GPUs, after the third 50 %; no policy that respects the models does more."""
    file = tmp_path / "rows.json"
    bench("--trace", "pairs", "--policies", "random,noodle", "--at", "50", "--json", str(file))
    assert values(file, "gpu_allocated_percent") == [50, 50]
    assert values(file, "bound_percent") == [pytest.approx(50)]


def test_one_line_for_each_trace_and_policy(bench: Bench) -> None:
    shown = bench("--policies", "fgd,best-fit").stdout
    assert [line.split()[:2] for line in shown.splitlines()[2:6]] == [
        ["mixed", "fgd"],
        ["best-fit", shown.splitlines()[3].split()[1]],
        ["pairs", "fgd"],
        ["best-fit", shown.splitlines()[5].split()[1]],
    ]
    assert "@90" in shown
    assert "bound @100" in shown


def test_published_results_are_shown_with_their_mean_and_the_margin(bench: Bench, traces: Path, tmp_path: Path) -> None:
    publish_results(traces, 99.0)
    file = tmp_path / "rows.json"
    shown = bench("--json", str(file)).output
    assert "99.00" in shown
    assert "points below published FGD" in shown
    assert values(file, "published_allocated_percent", trace="pairs", policy="fgd", at=100) == [99.0]
    single = [values(file, "gpu_allocated_percent", trace=t, policy="noodle", at=100)[0] for t in ("mixed", "pairs")]
    assert values(file, "gpu_allocated_percent", trace=MEAN, policy="noodle", at=100) == [
        pytest.approx(sum(single) / 2)
    ]
    assert values(file, "below_published_fgd_points") == [pytest.approx(99 - min(single))]


def test_figures_do_not_depend_on_the_number_of_processes(traces: Path) -> None:
    contest = contest_of(traces, [], ["noodle", "ray-hybrid", "random"], [42, 43], [90, 100])
    done: list[None] = []
    one, two = (rows_of(measure(contest, jobs, lambda: done.append(None))) for jobs in (1, 2))
    assert one == two
    assert len(done) == 2 * (2 * 2 + 2 * 3 * 2)


def test_pictures_without_matplotlib_are_refused_before_anything_is_run(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement_plots, "find_spec", lambda name: None)
    assert "noodle-ray[bench]" in error_of(bench("--plots", str(tmp_path / "plots")))


def test_pictures_are_written(bench: Bench, traces: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    publish_results(traces, 80.0)
    result = bench("--plots", str(tmp_path / "new" / "plots"), "--at", "50,100")
    assert result.exit_code == 0, result.output
    for trace in ("mixed", "pairs"):
        picture = (tmp_path / "new" / "plots" / f"{trace}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 10_000


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--policies", "noodle,worst-fit"], ["no policy 'worst-fit'", "known: best-fit, ", "ray-hybrid"]),
        (["--trace", "default"], ["no trace 'default'; known: mixed, pairs"]),
        (["--policies", " , "], ["--policies: must name at least one"]),
        (["--at", "90,131"], ["--at: must be whole numbers from 0 to 130"]),
        (["--at", "ninety"], ["--at: must be whole numbers"]),
        (["--churn", "/nowhere.csv"], ["/nowhere.csv"]),
        (["--latency", "--trace", "default"], ["no trace 'default'; known: mixed, pairs"]),
    ],
)
def test_what_is_unknown_or_malformed_is_said(bench: Bench, arguments: list[str], parts: list[str]) -> None:
    message = error_of(bench(*arguments))
    assert [part for part in parts if part not in message] == []


def test_without_a_directory_the_shared_data_is_used(
    bench: Bench, traces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHARED_DATA", raising=False)
    assert isinstance(bench(directory=None).exception, InvalidInput)
    monkeypatch.setenv("SHARED_DATA", str(traces))
    assert "SHARED_DATA must name a folder that has traces/" in error_of(bench(directory=None))
    traces.rename(traces.with_name("traces"))
    monkeypatch.setenv("SHARED_DATA", str(traces.parent))
    assert bench("--policies", "random", directory=None).exit_code == 0
    assert isinstance(bench(directory=traces.parent / "gone").exception, NotFound)


def test_goals_are_set_for_the_public_traces(traces_dir: Path) -> None:
    contest = contest_of(traces_dir / "openb", ["gpushare100"], ["noodle", "best-fit"], [1000], [90, 100])
    rows = rows_of(measure(contest, 2, lambda: None))
    goals = {
        (row.context["policy"], row.context["at"]): row.goal for row in rows if row.metric == "gpu_allocated_percent"
    }
    assert goals == {("noodle", 100): 86.6, ("noodle", 90): None, ("best-fit", 100): None, ("best-fit", 90): None}
    assert [row.value for row in rows if row.metric == "below_published_fgd_points"] != []


def test_churn_has_rows_for_what_is_held_and_who_waits(bench: Bench, tmp_path: Path) -> None:
    trace, file = tmp_path / "churn.csv", tmp_path / "rows.json"
    trace.write_text(
        "role,app_name,cpu_request,gpu_request,rdma_request,memory_request,disk_request,max_instance_per_node,"
        "creation_time,scheduled_time,deletion_time\n"
        + "".join(f"HN,a,8,1,25,40,100,4,{n},{n},{n + 30}\n" for n in range(20))
        + "CN,a,64,0,1,320,100,-1,,,\n"
    )
    result = bench("--churn", str(trace), "--policies", "noodle,ray-pack", "--json", str(file))
    assert result.exit_code == 0, result.output
    assert len(values(file, "churn_gpu_allocated_percent", policy="noodle")) == 1
    assert len(values(file, "churn_rejected_percent", policy="ray-pack", work="without GPUs")) == 1
    assert 0 < values(file, "churn_waited_s_p99", policy="noodle", work="with GPUs")[0] < 60


def test_latency_has_times_and_memory_by_size(bench: Bench, traces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement_latency, "DECISIONS", 20)
    monkeypatch.setattr(placement_latency, "WARM_UP", 5)
    monkeypatch.setattr(placement_latency, "NUMPY_SIZES", (15,))
    monkeypatch.setattr(placement_latency, "ANEW_SIZE", 15)
    rows = placement_latency.measure_size(placement_latency.Size(traces, "mixed", 15))
    assert [(row.metric, row.context.get("path")) for row in rows] == [
        *[(f"{metric}_p{p}", "machine code") for metric in ("decision_ms", "choose_ms") for p in (50, 99)],
        ("fleet_memory_mb", None),
        ("fleet_memory_mb", None),
        *[(f"decision_ms_p{p}", "numpy") for p in (50, 99)],
        *[(f"choose_ms_p{p}", "numpy, every node anew") for p in (50, 99)],
    ]
    assert all(row.context["nodes"] == 15 for row in rows)
    assert rows[5].context["allocations"] > 15


def test_growth_is_the_slope_of_logarithms() -> None:
    row = placement_latency.Row
    rows = [
        row(metric="decision_ms_p99", value=0.1 * n, unit="ms", context={"nodes": n, "path": "machine code"})
        for n in (10, 100, 1000)
    ]
    (growth,) = placement_latency.growth(rows)
    assert growth.value == pytest.approx(1)
    assert growth.context == {"of": "decision_ms_p99", "from": 10, "to": 1000, "path": "machine code"}
