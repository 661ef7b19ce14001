"""`noodle bench chaos`: the pictures of a made-up run are drawn."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from noodle_ray.entry.bench.chaos.outcome import Outcome
from noodle_ray.entry.bench.chaos.plots import a_second, write_plots
from noodle_ray.entry.bench.chaos.records import Inflicted, Probe, Seen
from noodle_ray.entry.bench.chaos.schedule import Layout, schedule

SECONDS = 600.0


def a_run() -> Outcome:
    """Ten minutes; in the two seconds after each fault a tenth is lost, and the rest is slow."""
    chance = np.random.default_rng(1)
    faults = schedule(1, SECONDS / 60, Layout("h1", ("h2", "h3"), ("h1", "h2")))
    inflicted = tuple(Inflicted(fault, fault.at_s, fault.at_s + fault.seconds) for fault in faults)
    probes = []
    for number, at_s in enumerate(np.arange(0, SECONDS, 0.05)):
        hurt = any(0 <= at_s - fault.at_s < 2 for fault in faults)
        took_s, lost = float(chance.exponential(1.0 if hurt else 0.02)), hurt and number % 10 == 0
        route = ("nodes", "allocate", "module", "fusion")[number % 4]
        probes.append(Probe(route, float(at_s), float(at_s), float(at_s) + (10 if lost else took_s), not lost, 200))
    looks = np.arange(0, SECONDS, 0.5)
    missing = [("nodes: 2 of 3",) if any(0 <= at - one.at_s < 4 for one in faults) else () for at in looks]
    seen = tuple(Seen(float(at), lacks) for at, lacks in zip(looks, missing, strict=True))
    return Outcome(SECONDS, tuple(probes), inflicted, seen)


def test_two_pictures_are_written(tmp_path: Path) -> None:
    paths = write_plots(a_run(), tmp_path / "plots")
    assert [path.name for path in paths] == ["answered.png", "latency.png"]
    for path in paths:
        with Image.open(path) as picture:
            assert picture.size[0] > 800
            assert len(set(picture.convert("RGB").resize((200, 120)).get_flattened_data())) > 20


def test_a_run_without_requests_has_no_pictures(tmp_path: Path) -> None:
    assert write_plots(Outcome(SECONDS, (), (), ()), tmp_path) == []


@given(st.floats(1, 100), st.lists(st.floats(0, 200)))
def test_each_answer_is_in_one_second(seconds: float, ended: list[float]) -> None:
    counts = a_second(seconds, ended)
    assert sum(counts) == len(ended)
    assert len(counts) == int(seconds)
