"""`noodle bench fusion --latency`: requests, arrivals, waiting that counts, shares, goals; without a cluster."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from noodle_ray.entry.bench.fusion import latency
from noodle_ray.entry.bench.fusion.in_process import play as play_in_process
from noodle_ray.entry.bench.fusion.latency import (
    ALIKE,
    GOAL_SHARE,
    IN_PROCESS,
    NO_CAPACITY,
    QUICK,
    THREE,
    Player,
    in_turn,
    numbered,
)
from noodle_ray.entry.bench.fusion.latency_phases import LONE, Measured, Phase, capacity
from noodle_ray.entry.bench.fusion.latency_plots import write_plots
from noodle_ray.entry.bench.fusion.latency_rows import rows_of, rows_of_phase
from noodle_ray.entry.bench.fusion.latency_table import show
from noodle_ray.entry.bench.fusion.load_generator import Asked, Load, Target, play
from noodle_ray.entry.bench.fusion.mix import SIDE, Clip, Mix
from noodle_ray.entry.bench.fusion.rivals import RIVALS
from noodle_ray.entry.bench.fusion.rivals_encoders import decoded
from noodle_ray.entry.bench.fusion.systems import System
from noodle_ray.entry.bench.open_loop import arrivals, open_loop
from noodle_ray.entry.cli.bench import rivals_of
from noodle_ray.errors import InvalidInput, Unavailable
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.fusion.modality import MODALITIES
from noodle_ray.settings import read_settings


@pytest.fixture(scope="module")
def mix() -> Mix:
    random = np.random.default_rng(0)
    picture = Image.fromarray(random.integers(0, 255, (SIDE, 2 * SIDE, 3), np.uint8))
    clip = Clip(random.integers(-9999, 9999, 8000).astype(np.int16), 8000)
    return Mix([clip], [picture], ["def f():\n    return 1"], ["one moment please"], [("a", "b"), ("c", "d")])


# -- requests


@given(st.integers(0, 10**12), st.sets(st.sampled_from(MODALITIES), min_size=1))
@settings(max_examples=25, deadline=None)
def test_a_number_makes_one_request_whatever_else_is_asked_for(mix: Mix, number: int, modalities: set[str]) -> None:
    some, every = mix.fields(number, sorted(modalities)), mix.fields(number, MODALITIES)
    assert some.items() <= every.items()
    assert MultimodalInput.parse(json.loads(mix.body(number, sorted(modalities)))).texts() == some["candidates"]


def test_no_two_requests_are_alike_in_any_modality(mix: Mix) -> None:
    first, second = mix.fields(2, MODALITIES), mix.fields(4, MODALITIES)
    assert first["candidates"] == second["candidates"]
    for modality, field in (("text", "text"), ("code", "code"), ("vision", "image"), ("audio", "audio")):
        one, other = decoded(modality, first[field]), decoded(modality, second[field])
        assert not np.array_equal(one, other), modality


def test_phases_have_requests_of_their_own_and_a_warm_cache_the_same_ones() -> None:
    cold = Phase("a", LONE, Load(modalities=THREE, seconds=1))
    assert numbered(cold, 1) == numbered(replace(cold, system="b"), 1)
    assert numbered(cold, 1).first != numbered(replace(cold, what="4 at once"), 1).first
    warm = Load(modalities=THREE, seconds=1, different=ALIKE)
    assert {numbered(Phase("a", what, warm), 1).first for what in (LONE, "4 at once")} == {0}
    assert [warm.number(index) for index in range(ALIKE + 1)] == [*range(ALIKE), 0]


# -- the load generator


@given(st.floats(0.5, 200), st.integers(0, 100))
@settings(max_examples=50, deadline=None)
def test_arrivals_are_poisson_and_the_same_for_a_seed(rate: float, seed: int) -> None:
    times = arrivals(rate, 20, seed)
    assert times == arrivals(rate, 20, seed) == sorted(times)
    assert all(0 < at < 20 for at in times)
    expected = 20 * rate
    assert abs(len(times) - expected) < 6 * expected**0.5 + 1


async def test_a_slow_answer_slows_no_question_and_its_wait_counts() -> None:
    """Nine are due while the first keeps the only server busy: all are sent at once, and their waiting is seen."""
    server = asyncio.Lock()
    sent: list[float] = []

    async def send(body: bytes, due: float) -> Asked:
        sent.append(time.monotonic() - due)
        async with server:
            await asyncio.sleep(0.2 if body == b"0" else 0)
        return Asked(at_s=due, late_ms=0, ms=(time.monotonic() - due) * 1000, status=200)

    asked = await open_loop(send, [b"%d" % number for number in range(10)], [0.001 * number for number in range(10)])
    assert max(sent) < 0.15
    assert min(one.ms for one in asked) >= 150


@asynccontextmanager
async def answering(handler: Callable[[web.Request], Any]) -> AsyncIterator[Target]:
    application = web.Application()
    application.router.add_post("/fusion", handler)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    try:
        yield Target(url=f"http://127.0.0.1:{port}/fusion", headers={"X-Who": "bench"}, cache_dir=Path())
    finally:
        await runner.cleanup()


async def test_what_becomes_of_requests_is_noted(mix: Mix) -> None:
    turns = itertools.count()

    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.headers["X-Who"] == "bench"
        question = await request.json()
        match next(turns) % 4:
            case 0:
                used = [name for name in ("text", "code") if name in question]
                return web.json_response({"modalities_used": used, "stage_ms": {"text": 1.5}})
            case 1:
                return web.Response(status=429, headers={"Retry-After": "1"})
            case 2:
                return web.Response(status=503, text="no encoder")
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async with answering(handler) as target:
        started: list[bool] = []
        load = Load(modalities=("text", "code"), seconds=0.4, rate=40)
        asked = await play(target, load, mix, lambda: started.append(True))
    by_status = {one.status: one for one in asked}
    assert started == [True]
    assert set(by_status) == {200, 429, 503, 0}
    assert by_status[200].used == ("text", "code") and by_status[200].stage_ms == {"text": 1.5}
    assert by_status[429].shed
    assert "no encoder" in by_status[503].problem
    measured = Measured(Phase("x", "y", load), asked)
    assert {one.status for one in measured.lost} == {0, 503}
    assert measured.full == measured.answered


async def test_a_closed_loop_has_so_many_under_way(mix: Mix) -> None:
    under_way: list[int] = [0]
    most: list[int] = []

    async def handler(request: web.Request) -> web.Response:
        under_way[0] += 1
        most.append(under_way[0])
        await asyncio.sleep(0.01)
        under_way[0] -= 1
        return web.json_response({"modalities_used": ["text"]})

    async with answering(handler) as target:
        asked = await play(target, Load(modalities=("text",), seconds=0.3, workers=3), mix, lambda: None)
    assert max(most) == 3
    assert len(asked) == len(most)


# -- figures and goals


def asked(ms: Sequence[float], used: Sequence[str] = MODALITIES, status: int = 200, shed: bool = False) -> list[Asked]:
    return [
        Asked(at_s=number / 10, late_ms=0, ms=one, status=status, used=tuple(used), shed=shed)
        for number, one in enumerate(ms)
    ]


def phase(system: str = "noodle-ray", what: str = LONE, **more: Any) -> Phase:
    fields = {"modalities": MODALITIES, "seconds": 1.0} | {
        k: more.pop(k) for k in tuple(more) if k in Load.model_fields
    }
    return Phase(system, what, Load(**fields), **more)


def test_shares_are_of_all_that_was_asked_and_those_used_of_what_came_in_time() -> None:
    answers = [*asked([50] * 6), *asked([300] * 2), *asked([50], used=("text",)), *asked([1], status=429, shed=True)]
    at_goal = phase(what="60 % of capacity", share=GOAL_SHARE, rate=5.0)
    rows = {row.metric: row for row in rows_of_phase(Measured(at_goal, answers, cpu_ms=500))}
    assert rows["within_deadline_percent"].value == 70.0
    assert rows["all_modalities_used_percent"].value == pytest.approx(100 * 6 / 7)
    assert rows["answered_percent"].value == 90.0
    assert rows["lost_requests"].value == 0
    assert rows["cpu_ms_per_request"].value == 50
    assert rows["fusion_ms_p50"].value == 50
    assert rows["fusion_ms_p99"].goal == 200
    assert rows["within_deadline_percent"].goal == 99.9


def test_nothing_may_be_lost_while_an_encoder_fails() -> None:
    broken = phase(what="60 % of capacity", share=GOAL_SHARE, rate=5.0, fault="vision killed")
    rows = {row.metric: row for row in rows_of_phase(Measured(broken, [*asked([9]), *asked([9], status=503)]))}
    assert (rows["lost_requests"].value, rows["lost_requests"].goal) == (1, 0)
    assert "503" in str(rows["lost_requests"].context["lost for"])
    assert rows["fusion_ms_p99"].goal is None


def test_goals_of_what_was_left_out_stay_without_values() -> None:
    rows = rows_of_phase(Measured(phase(what="60 % of capacity", share=GOAL_SHARE), left_out="no capacity"))
    assert {row.metric for row in rows} == {
        "fusion_ms_p99",
        "within_deadline_percent",
        "all_modalities_used_percent",
    }
    assert all(row.value is None and row.context["left out"] == "no capacity" for row in rows)


def test_capacity_counts_full_answers_only() -> None:
    fast_but_half = Measured(phase(what="8 at once"), asked([10] * 50, used=("text",)))
    full = Measured(phase(), asked([100] * 20))
    assert capacity([fast_but_half, full]) == pytest.approx(20 / 2.0)
    assert capacity([fast_but_half]) == 0


def everything() -> list[Measured]:
    return [
        Measured(phase(modalities=THREE), asked([55.0] * 5, used=THREE), 100),
        Measured(phase(different=ALIKE), asked([8.0] * 5), 100),
        Measured(phase(), asked([80.0] * 5), 100),
        *(Measured(phase(what=f"{s} %", share=s, rate=9 * s), asked([90.0 + 100 * s] * 9), 9) for s in (0.3, 0.6)),
        Measured(phase(what="60 % of capacity", share=0.6, fault="vision swapped"), left_out="it is no module"),
        Measured(phase(IN_PROCESS), asked([75.0] * 5)),
        *(Measured(phase("fastapi", f"{s} %", share=s, rate=9 * s), asked([300.0] * 9), 9) for s in (0.3, 0.6)),
        Measured(phase("litserve"), left_out="it is not installed"),
    ]


def test_overhead_is_the_difference_to_the_same_encoders_in_one_process() -> None:
    rows = rows_of(everything())
    overhead = [row for row in rows if row.metric == "overhead_ms_p50"]
    assert [(row.value, row.goal, row.context["system"]) for row in overhead] == [(5.0, 10.0, "noodle-ray")]
    assert [row.value for row in rows if row.metric == "cached_ms_p50"] == [8.0]
    assert [row.goal for row in rows if row.metric == "fusion_ms_p50" and row.goal is not None] == [60.0]


def test_where_a_lone_requests_time_goes_is_told_by_its_answer() -> None:
    told = [one.model_copy(update={"stage_ms": {"text": 30.0, "total": 40.0}}) for one in asked([50.0] * 3)]
    rows = [row for row in rows_of_phase(Measured(phase(), told)) if row.metric == "stage_ms_p50"]
    assert {row.context["stage"]: row.value for row in rows} == {"text": 30.0, "total": 40.0, "outside": 10.0}


def test_the_table_shows_systems_goals_and_what_was_left_out(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    show(everything())
    captured = capsys.readouterr()
    for words in ("noodle-ray (over HTTP)", "in one process (without HTTP)", "goals", "all four", "cache warm"):
        assert words in captured.out
    assert "left out: litserve, lone: it is not installed" in captured.err
    assert "vision swapped" in captured.err
    assert {path.name for path in write_plots(everything(), tmp_path)} == {"latency.png", "in-time.png"}


# -- playing


class Answering:
    """Stands for a generator's process: every request is answered at once."""

    def __init__(self) -> None:
        self.loads: list[Load] = []

    def run(self, load: Load, meanwhile: Callable[[], Any] = lambda: None) -> list[Asked]:
        self.loads.append(load)
        meanwhile()
        return asked([1.0] * 4, used=load.modalities)


def player(generator: Answering) -> Player:
    return Player(System("noodle-ray", ""), generator, QUICK, lambda line: None)  # type: ignore[arg-type]


def test_ours_and_the_floor_take_turns() -> None:
    ours, floor = Answering(), Answering()
    first, second = player(ours), player(floor)
    in_turn((first, second), THREE, seconds=0.3, rounds=3)
    assert len(ours.loads) == 3
    assert ours.loads == floor.loads
    assert len({load.first for load in ours.loads}) == 3
    assert [len(one.asked) for one in (*first.measured, *second.measured)] == [12, 12]


def test_faults_are_brought_about_meanwhile_and_those_that_cannot_be_are_left_out() -> None:
    generator, acts = Answering(), []
    playing = player(generator)
    playing.open(GOAL_SHARE, 10.0, 0.04, "vision killed", lambda: acts.append("killed"))

    def swap() -> None:
        raise Unavailable("it is no module")

    playing.open(GOAL_SHARE, 10.0, 0.04, "vision swapped", swap)
    assert acts == ["killed"]
    assert [one.left_out for one in playing.measured] == ["", "it is no module"]
    assert {load.rate for load in generator.loads} == {6.0}


def test_without_capacity_there_are_no_shares_of_it() -> None:
    generator = Answering()
    playing = player(generator)
    playing.open(GOAL_SHARE, 0.0, 1.0)
    assert generator.loads == []
    assert [one.left_out for one in playing.measured] == [NO_CAPACITY]


def test_whoever_interrupts_it_gets_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    done, told = Measured(phase(what=LONE)), list[str]()

    def interrupted(plan: object, settings: object, progress: object, measured: list[Measured]) -> float:
        measured.append(done)
        raise KeyboardInterrupt

    monkeypatch.setattr(latency, "_measure_ours", interrupted)
    assert latency.measure(QUICK, read_settings(), told.append) == [done]
    assert "interrupted" in told[0]


def test_the_floor_is_asked_one_after_the_other(mix: Mix) -> None:
    class Encoders:
        def answer(self, question: dict[str, Any]) -> dict[str, Any]:
            time.sleep(0.01)
            return {"modalities_used": ["text"]}

    played = list(play_in_process(Encoders(), Load(modalities=("text",), seconds=0.05), mix))  # type: ignore[arg-type]
    assert 1 <= len(played) <= 5
    assert all(one.ms >= 10 and one.used == ("text",) for one in played)


def test_rivals_are_chosen_by_name() -> None:
    assert rivals_of(None) == tuple(RIVALS)
    assert rivals_of(["none"]) == ()
    assert rivals_of(["litserve", "litserve"]) == ("litserve",)
    with pytest.raises(InvalidInput, match="ray-serve"):
        rivals_of(["torchserve"])
