"""The keeper as a Serve deployment, with the engine that asks it: what it keeps outlives it, and errors are ours."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import keeper_fakes
import psutil
import pytest
from keeper_fakes import Compass, Registry

from noodle_ray.actors.ports import AppFusion
from noodle_ray.errors import Conflict, InvalidInput, LimitReached, NotFound, Unavailable
from noodle_ray.fusion.index_messages import KnownQuery, NewEntry
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.settings import Settings

pytestmark = pytest.mark.ray
T = TypeVar("T")

ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "1",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
}
ENTRIES = (NewEntry(name="pole", text="the north"), NewEntry(name="dawn", text="the sun", meta={"at": 6}))


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    with tempfile.TemporaryDirectory(prefix="nr-state-") as folder:
        yield Settings(state_dir=Path(folder), fusion_sessions=3, fusion_max_processing_time_ms=20_000)


@pytest.fixture(scope="module")
def app(settings: Settings) -> Iterator[AppFusion]:
    with tempfile.TemporaryDirectory(prefix="nr-") as folder, pytest.MonkeyPatch.context() as environment:
        for name, value in {**ENVIRONMENT, "RAY_TMPDIR": folder}.items():
            environment.setenv(name, value)
        import ray
        from ray import cloudpickle, serve

        from noodle_ray.fusion_models.deployments import build_application

        cloudpickle.register_pickle_by_value(sys.modules[keeper_fakes.__name__])
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=80 * 2**20,
            _temp_dir=folder,
            log_to_driver=False,
            namespace="keeper-test",
        )
        try:
            serve.start(proxy_location="Disabled")
            serve.run(build_application(settings, Compass, Registry), name="fusion", route_prefix=None)
            yield AppFusion("fusion")
            serve.shutdown()
        finally:
            ray.shutdown()
            cloudpickle.unregister_pickle_by_value(sys.modules[keeper_fakes.__name__])


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[[Coroutine[Any, Any, T]], T]]:
    """One event loop for all: handles belong to the loop that used them first."""
    with asyncio.Runner() as runner:
        yield runner.run


def kill_keeper() -> None:
    import ray

    # As a crash does, without a word to Serve.
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if "FusionKeeper" in actor["name"]:
            ray.kill(ray.get_actor(actor["name"], actor["namespace"]), no_restart=True)


def engine() -> psutil.Process:
    title = "ray::ServeReplica:fusion:FusionEngine"
    [found] = [one for one in psutil.Process().children(recursive=True) if "".join(one.cmdline()).startswith(title)]
    return found


async def eventually(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Asked again while the keeper is being started again."""
    for _ in range(300):
        try:
            return await work()
        except Unavailable:
            await asyncio.sleep(0.2)
    return await work()


def test_an_index_is_made_found_and_outlives_the_keeper(app: AppFusion, run: Any) -> None:
    run(app.create_index("sky", "code"))
    assert run(app.add_to_index("sky", ENTRIES)).entries == 2
    request = MultimodalInput(text="to the north", index="sky")
    found = run(app.process(request))
    assert (found.ask, found.candidates[0].candidate, found.candidates[1].meta) == ("find", "pole", {"at": 6})
    kill_keeper()
    assert run(app.process(request)).candidates == found.candidates
    assert run(eventually(lambda: app.index_entries("sky"))) == ["pole", "dawn"]
    queries = [KnownQuery(text=f"north {number}", answer="pole") for number in range(6)]
    assert run(app.fit_index("sky", queries)).fitted["validated_on"] == 2
    assert run(app.remove_from_index("sky", ["dawn"])).entries == 1
    run(app.drop_index("sky"))
    with pytest.raises(NotFound, match="index 'sky'"):
        run(app.process(request))


def test_modules_are_found(app: AppFusion, run: Any) -> None:
    found = run(app.process(MultimodalInput(text="where is north?", index="modules")))
    assert found.candidates[0].candidate == "compass"
    assert found.candidates[0].meta == {"version": "1.0", "description": "tells where north is"}
    with pytest.raises(Conflict, match="module registry's"):
        run(app.drop_index("modules"))


def test_a_session_counts_fades_and_is_forgotten(app: AppFusion, run: Any) -> None:
    session = run(app.open_session()).session
    candidates = ("the north", "the sun")
    first = run(app.process(MultimodalInput(text="north it is", candidates=candidates, session=session)))
    assert first.context is not None and first.context.turns == 0 and not first.context.counted

    async def ask(use_context: bool) -> Any:
        request = MultimodalInput(text="what?", candidates=candidates, session=session, use_context=use_context)
        while True:  # the turn is noted beside the answer
            answer = await eventually(lambda: app.process(request))
            if answer.context is not None and answer.context.turns:
                return answer
            await asyncio.sleep(0.05)

    counted = run(ask(True))
    assert counted.context.counted and counted.context.contribution != 0
    assert counted.context.candidate_without == "the sun"
    without = run(ask(False))
    assert not without.context.counted and without.candidates[0].candidate == "the sun"
    kill_keeper()
    assert run(ask(True)).context.turns >= 1
    run(app.forget_session(session))
    with pytest.raises(NotFound, match="session"):
        run(app.process(MultimodalInput(text="what?", session=session)))


def test_errors_are_ours(app: AppFusion, run: Any) -> None:
    with pytest.raises(InvalidInput, match="code, text, dense"):
        run(app.create_index("wood", "wooden"))
    with pytest.raises(NotFound, match="index 'ghost'"):
        run(app.add_to_index("ghost", ENTRIES))
    with pytest.raises(NotFound, match="head 'ghost'"):
        run(app.process(MultimodalInput(text="a", head="ghost")))
    opened = [run(app.open_session()).session for _ in range(3)]
    with pytest.raises(LimitReached, match="NOODLE_FUSION_SESSIONS"):
        run(app.open_session())
    for session in opened:
        run(app.forget_session(session))


def test_an_engine_that_does_not_answer_is_not_waited_for_without_an_end(app: AppFusion, run: Any) -> None:
    impatient, asked = AppFusion("fusion", within_s=0.5), MultimodalInput(text="north")
    stopped = engine()
    stopped.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(Unavailable, match="fusion engine does not answer"):
            run(impatient.process(asked))
    finally:
        stopped.send_signal(signal.SIGCONT)
    assert run(impatient.process(asked)).modalities_used == ("text",)


def test_the_keeper_stays_on_the_head_and_imports_no_torch(app: AppFusion) -> None:
    import subprocess

    from ray import serve

    assert serve.status().applications["fusion"].deployments["FusionKeeper"].status == "HEALTHY"
    program = "import sys, noodle_ray.fusion_models.keeper; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
