"""`noodle bench chaos`: processes that grow are told from those that are flat, spiky, or started anew."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noodle_ray.entry.bench.chaos.growth import LEAST_S, WARM_UP_S, Limits, Sample, judge, rows_of, sample

MIB = 2**20
EVERY_S = 15.0


def series(
    an_hour: float = 0.0, fds_an_hour: float = 0.0, level: float = 200 * MIB, pid: int = 1, start_s: float = 0.0
) -> list[Sample]:
    """An hour, a sample each quarter of a minute, the memory a little restless."""
    chance = np.random.default_rng(1)
    made = []
    for at_s in np.arange(start_s, start_s + 3600, EVERY_S):
        hours = (at_s - start_s) / 3600
        memory = level + an_hour * hours + chance.normal(0, 2 * MIB)
        made.append(Sample(float(at_s), "manager", pid, int(memory), int(60 + fds_an_hour * hours)))
    return made


@pytest.mark.parametrize(
    ("an_hour", "problem"),
    [(0, ""), (-100 * MIB, ""), (12 * MIB, ""), (40 * MIB, "memory grows by"), (400 * MIB, "memory grows by")],
)
def test_memory_that_grows_is_told_from_memory_that_does_not(an_hour: float, problem: str) -> None:
    [found] = judge(series(an_hour))
    assert found.problem.startswith(problem) and bool(found.problem) is bool(problem)
    assert found.memory_bytes_an_hour == pytest.approx(an_hour, abs=4 * MIB)


def test_a_large_process_may_grow_by_a_share_of_what_it_has() -> None:
    assert judge(series(40 * MIB, level=2000 * MIB))[0].problem == ""
    assert judge(series(40 * MIB, level=2000 * MIB), Limits(share=0.01))[0].problem != ""


def test_descriptors_that_are_left_open_are_found() -> None:
    [found] = judge(series(fds_an_hour=30))
    assert found.problem.endswith("descriptors more an hour")
    assert judge(series(fds_an_hour=2))[0].problem == ""


def test_the_first_minutes_do_not_count() -> None:
    warm = [Sample(one.at_s, one.name, one.pid, 10 * MIB, 5) if one.at_s < WARM_UP_S else one for one in series()]
    assert judge(warm)[0].problem == ""


def test_spikes_are_no_growth() -> None:
    made = [
        Sample(one.at_s, one.name, one.pid, one.memory_bytes * (5 if number % 7 == 6 else 1), one.descriptors)
        for number, one in enumerate(series())
    ]
    assert judge(made)[0].problem == ""


def test_each_life_of_a_process_is_judged_by_itself_and_a_short_one_not_at_all() -> None:
    lives = [*series(pid=1), *series(an_hour=300 * MIB, pid=2, start_s=3600), *series(pid=3, start_s=7200)[:40]]
    assert [(one.pid, bool(one.problem)) for one in judge(lives)] == [(1, False), (2, True)]
    assert judge([]) == []


@given(st.integers(0, 400), st.floats(1, 60))
@settings(max_examples=40)
def test_what_does_not_change_is_flat_and_what_is_watched_too_shortly_is_not_judged(count: int, every_s: float) -> None:
    made = [Sample(number * every_s, "x", 1, 50 * MIB, 9) for number in range(count)]
    found = judge(made)
    assert all((one.problem, one.memory_bytes_an_hour, one.descriptors_an_hour) == ("", 0, 0) for one in found)
    assert bool(found) <= ((count - 1) * every_s >= WARM_UP_S + LEAST_S)


def test_many_samples_are_thinned_and_say_the_same() -> None:
    late = [max(0, number - 3600) * 30_000 for number in range(7200)]
    [found] = judge([Sample(number * 1.0, "x", 1, 200 * MIB + more, 9) for number, more in enumerate(late)])
    [thinner] = judge([Sample(number * 1.0, "x", 1, 200 * MIB + late[number], 9) for number in range(0, 7200, 10)])
    assert found.memory_bytes_an_hour == pytest.approx(thinner.memory_bytes_an_hour, rel=0.02)
    assert found.problem.startswith("memory grows by")


def test_processes_are_sampled_and_those_that_are_gone_left_out() -> None:
    program = "import os, sys; held = [os.pipe() for _ in range(20)]; print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        found = {one.name: one for one in sample({"us": os.getpid(), "child": child.pid}, 3.0)}
        child.communicate()
    assert found["child"].descriptors >= 40
    assert all(one.at_s == 3.0 and MIB < one.memory_bytes < 2**40 for one in found.values())
    assert sample({"child": child.pid}, 4.0) == []


def test_rows_name_the_process_and_count_those_that_grow() -> None:
    rows = rows_of(judge([*series(pid=1), *series(300 * MIB, pid=2)]))
    assert [(row.metric, row.context.get("pid")) for row in rows[:2]] == [
        ("memory_mib_an_hour", 1),
        ("descriptors_an_hour", 1),
    ]
    assert (rows[-1].metric, rows[-1].value, rows[-1].goal) == ("processes_growing", 1, 0)
