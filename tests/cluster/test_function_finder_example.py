"""examples/function_finder.py against a real cluster, by what its user sees."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from noodle_ray import Cluster
from noodle_ray.entry.cluster.local_cluster import LocalCluster
from noodle_ray.entry.training.voices import find_synthesiser
from noodle_ray.errors import Unavailable
from noodle_ray.settings import read_settings

pytestmark = pytest.mark.ray

SCRIPT = Path(__file__).parents[2] / "examples" / "function_finder.py"
WANTED = ["heapify", "heapq"]


def run(running: LocalCluster, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    environment = {**running.environment(), **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def chapters(output: str) -> dict[str, list[str]]:
    """The lines under each headline, by the headline."""
    found: dict[str, list[str]] = {"": []}
    for line in output.splitlines():
        if line.endswith("─"):
            found[line.rstrip("─ ")] = []
        else:
            list(found.values())[-1].append(line)
    return found


def first_hit(chapter: list[str]) -> list[str]:
    """The function and the module of the first row below the header."""
    return chapter[1].split()[1:]


def leftovers(cluster: Cluster) -> list[str]:
    return [index.name for index in cluster.fusion.indexes.list() if index.name.startswith("function-finder-")]


def test_a_function_is_found_by_sentence_line_and_voice(running: LocalCluster, cluster: Cluster) -> None:
    try:
        find_synthesiser(read_settings().cache_dir)
    except Unavailable as error:
        pytest.skip(f"no artificial voice: {error}")
    done = run(running)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = chapters(done.stdout)
    assert any(line.startswith("audio") for line in shown["By voice"])
    assert any(line.startswith("it does not know") for line in shown["By a line of code, renamed"])
    for title in ("By a sentence", "By voice and the line", "By all together"):
        assert first_hit(shown[title]) == WANTED, done.stdout
    assert any(line.startswith("it knows") for line in shown["By all together"]), done.stdout
    assert "with the fitted rule" in "".join(shown["Fitting the rule by questions with known answers"])
    assert not leftovers(cluster)


def test_where_no_voice_can_be_had_it_goes_on_without(running: LocalCluster, cluster: Cluster, tmp_path: Path) -> None:
    done = run(running, PATH=os.devnull, NOODLE_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    shown = chapters(done.stdout)
    assert "going on without voice" in "".join(shown[""])
    assert "By voice" not in shown
    assert first_hit(shown["By all together"]) == WANTED, done.stdout
    assert not leftovers(cluster)


def test_an_error_leaves_no_index_behind(running: LocalCluster, cluster: Cluster, tmp_path: Path) -> None:
    recording = tmp_path / "me.wav"
    recording.write_bytes(b"no sound")
    done = run(running, str(recording))
    assert done.returncode == 1
    assert "is no readable sound" in done.stderr
    assert "is dropped" in done.stdout
    assert not leftovers(cluster)
