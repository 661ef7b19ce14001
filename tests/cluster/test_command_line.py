"""The command line against a real cluster, and the main job as a script and as a Ray job."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from noodle_ray import Cluster, Demand, Request
from noodle_ray.entry.cluster.local_cluster import LocalCluster
from noodle_ray.entry.training.datasets import photographs
from noodle_ray.errors import Conflict

pytestmark = pytest.mark.ray

Noodle = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parents[2]


def test_status_shows_nodes_resources_and_allocations(noodle: Noodle, cluster: Cluster) -> None:
    with cluster.allocate(Demand(cpus=1, gpu_share=0.5)) as allocation:
        shown = noodle("status").stdout
        explained = noodle("explain", allocation.id).stdout
    assert "2 x A100 *" in shown
    assert "* pretended" in shown
    assert allocation.id in shown
    assert f"{allocation.id} held, asked for" in explained
    assert "3 considered, filtered out by gpu_share on 1" in explained
    assert "gpu-b beats gpu-a" in explained or "gpu-a beats gpu-b" in explained


def test_top_and_explain_show_who_waits(noodle: Noodle, noodle_json: Callable[..., Any], cluster: Cluster) -> None:
    with cluster.allocate(Demand(gpus=4)), ThreadPoolExecutor() as pool:
        waiting = pool.submit(cluster.hold, Demand(gpus=3), None, 7, 300)
        try:
            queue = eventually(lambda: noodle_json("top")["queue"])
            shown, explained = noodle("top", "--once").stdout, noodle("explain", queue[0]["id"]).stdout
        finally:
            cluster.release(queue[0]["id"])
            assert isinstance(waiting.exception(), Conflict)
    assert "4 of 6 GPU held 66.7%" in shown
    assert "██████ ██████ ██████ ██████" in shown
    assert "queue 1" in shown
    assert "waiting, asked for" in explained
    assert "1 of 1 in the queue, priority 7" in explained
    assert "gpus fails on 3 of 3 (best: 2)" in explained


def eventually(ask: Callable[[], Any]) -> Any:
    """What it answers as soon as that is something."""
    end = time.monotonic() + 60
    while not (answer := ask()):
        assert time.monotonic() < end, "nothing came"
    return answer


def test_a_plan_on_the_live_fleet_holds_nothing(
    noodle_json: Callable[..., Any], cluster: Cluster, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text("requests: [{name: whole, count: 3, gpus: 2}, {name: giant, gpus: 8}]")
    with cluster.allocate(Demand(gpus=2, accelerator_type="A100")):
        result = noodle_json("plan", str(plan))
        assert noodle_json("status")["resources"]["gpus"]["held"] == 2
    named = {node.id: node.name for node in cluster.nodes()}
    homes = [[named[bundle["node_id"]] for bundle in one["bundles"]] for one in result["outcomes"]]
    assert homes == [["gpu-b"], ["gpu-b"], [], []]
    assert [one["never"] for one in result["outcomes"]] == [False, False, False, True]
    placed = {named[one["like"]]: one["placed"] for one in result["growth"]}
    assert placed == {"gpu-a": ["whole-3"], "gpu-b": ["whole-3"], "head": []}


def test_a_defragmentation_of_the_live_fleet(noodle_json: Callable[..., Any], cluster: Cluster) -> None:
    """Two halves on two nodes; the one that may be moved joins the other."""
    named = {node.name: node.id for node in cluster.nodes()}
    bound = Demand(gpu_share=0.5, accelerator_type="L4")
    free = Request(bundles=(Demand(gpu_share=0.5),), movable=True)
    with cluster.allocate(bound):
        cluster.cordon(named["gpu-b"])
        try:
            moved = cluster.hold(free)
        finally:
            cluster.cordon(named["gpu-b"], False)
        proposal = noodle_json("defrag", "--dry-run")
        cluster.release(moved.id)
    (move,) = proposal["moves"]
    assert (move["allocation_id"], move["source"], move["target"]) == (moved.id, named["gpu-a"], named["gpu-b"])
    assert proposal["fragmentation_after"] < proposal["fragmentation_before"]


def test_json_for_programs(noodle_json: Callable[..., Any]) -> None:
    status = noodle_json("status")
    assert {node["name"] for node in status["nodes"]} == {"head", "gpu-a", "gpu-b"}
    assert status["resources"]["gpus"]["total"] == 6
    assert status["allocations"] == noodle_json("allocations")
    assert {allocation["owner"] for allocation in status["allocations"]} == {
        f"module:{modality}-encoder" for modality in ("text", "audio", "vision", "code")
    }
    assert {service["name"] for service in noodle_json("service", "list")} >= {"gateway", "fusion"}


def test_a_new_module_is_ready_to_be_used(noodle: Noodle, noodle_json: Callable[..., Any], tmp_path: Path) -> None:
    directory = str(tmp_path / "greeter")
    assert noodle("module", "init", "greeter", directory).returncode == 0
    assert noodle_json("module", "check", directory)["functions"][0].startswith("greet(name: str")
    assert "must be new or empty" in noodle("module", "init", "greeter", directory).stderr
    assert noodle_json("module", "publish", directory)["version"] == "0.1.0"
    noodle_json("module", "load", "greeter")
    assert noodle("module", "call", "greeter", "greet", '["Ada"]').stdout.strip() == '"Good day, Ada."'
    assert noodle("module", "unload", "greeter").returncode == 0


def test_modules_from_the_shell(noodle: Noodle, noodle_json: Callable[..., Any], tmp_path: Path) -> None:
    directory = ROOT / "examples" / "modules" / "tokenizer"
    for version in sorted(directory.iterdir()):
        if (version / "pyproject.toml").exists():
            assert noodle_json("module", "publish", str(version))["name"] == "tokenizer"
    assert noodle_json("module", "resolve", "tokenizer<1.1")["modules"][0]["version"] == "1.0"
    assert noodle_json("module", "load", "tokenizer", "<1.1")["version"] == "1.0"
    assert noodle("module", "call", "tokenizer", "tokenize", '["Hello there"]').returncode == 0
    assert noodle_json("module", "show", "tokenizer")["loaded"] == "1.0"
    assert "tokenizer 1.0 loaded" in noodle("module", "graph").stdout
    picture = tmp_path / "modules.svg"
    assert noodle("module", "graph", "--svg", str(picture)).returncode == 0
    assert ">tokenizer<" in picture.read_text()
    noodle_json("module", "swap", "tokenizer")
    assert noodle_json("module", "rollback", "tokenizer")["version"] == "1.0"
    assert [each["kind"] for each in noodle_json("module", "show", "tokenizer")["changes"]] == [
        "load",
        "swap",
        "rollback",
    ]
    assert noodle("module", "unload", "tokenizer").returncode == 0
    assert "tokenizer" in noodle("module", "list").stdout


def test_fuse_from_the_shell(noodle_json: Callable[..., Any], noodle: Noodle) -> None:
    picture = next(photo.path for photo in photographs() if photo.name == "coffee")
    candidates = ("--candidate", "a cup of coffee", "--candidate", "a rocket")
    answer = noodle_json("fuse", "--image", str(picture), "--text", "something hot to drink", *candidates)
    assert answer["candidates"][0]["candidate"] == "a cup of coffee"
    assert "a cup of coffee" in noodle("fuse", "--image", str(picture), *candidates).stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("explain", "nobody"), "error (not_found): no allocation 'nobody'"),
        (("release", "nobody"), "no allocation 'nobody'"),
        (("cordon", "nobody"), "no node 'nobody'; known: "),
        (("module", "load", "nobody"), "error (not_found)"),
        (("module", "call", "x", "f", "{"), "arguments: must be JSON"),
        (("module", "call", "x", "f", "3"), "arguments: must be a JSON list or object"),
        (("module", "publish", "/nowhere"), "error ("),
        (("fuse",), "give at least one of text, code, image and audio"),
        (("defrag",), "give --dry-run"),
        (("plan", os.devnull), "document: must have requests"),
        (("node", "add", "--gpus", "2"), "give --pretend"),
        (("up",), "is running at"),
    ],
)
def test_errors_are_one_line(noodle: Noodle, cluster: Cluster, arguments: tuple[str, ...], says: str) -> None:
    run = noodle(*arguments)
    assert run.returncode == 1
    assert says in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == ""


def test_a_wrong_setting_is_named(running: LocalCluster) -> None:
    environment = {**running.environment(), "NOODLE_NODE_TIMEOUT": "soon"}
    command = [str(Path(sys.executable).with_name("noodle")), "status"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "NOODLE_NODE_TIMEOUT" in run.stderr


def test_a_cordon_by_name(noodle: Noodle, noodle_json: Callable[..., Any]) -> None:
    assert noodle("cordon", "gpu-a").returncode == 0
    assert [node["name"] for node in noodle_json("status")["nodes"] if node["cordoned"]] == ["gpu-a"]
    assert noodle("uncordon", "gpu-a").returncode == 0


def shows_the_main_job(output: str) -> None:
    assert "a Ray task in it ran on gpu-a" in output
    assert "refused: cannot place 2 CPU, 8 GPU" in output
    assert "swapped to wordcount 2.0.0" in output
    assert "joint embedding: 384 numbers" in output
    assert "without a token → 401" in output


def test_the_main_job_as_a_script(running: LocalCluster) -> None:
    command = [sys.executable, str(ROOT / "examples" / "first_light.py")]
    run = subprocess.run(command, env=running.environment(), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    shows_the_main_job(run.stdout)


def test_the_main_job_as_a_ray_job(running: LocalCluster) -> None:
    ray = str(Path(sys.executable).with_name("ray"))
    script = ROOT / "examples" / "first_light.py"
    job = [ray, "job", "submit", "--address", running.file.dashboard_url, "--", sys.executable, str(script)]
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(running.settings.state_dir / "token")}
    environment = {**os.environ, **token}
    run = subprocess.run(job, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    shows_the_main_job(run.stdout)
