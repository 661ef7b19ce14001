"""What was started here and ended without a `down`: gone on with, never forgotten by mistake."""

from pathlib import Path

import pytest

from noodle_ray.entry.cluster import launch, ray_process
from noodle_ray.entry.cluster.cluster_file import ClusterFile, StartedProcess, cluster_path, read_cluster, this_boot
from noodle_ray.entry.cluster.joining import JoinOptions, join
from noodle_ray.entry.cluster.launch import UpOptions
from noodle_ray.entry.cluster.left_behind import left_behind, refuse_if_left_behind, refuse_other_tables
from noodle_ray.errors import Conflict, Unavailable
from noodle_ray.settings import Settings

GONE = StartedProcess(pid=2**22 - 1, started_at=1.0, role="head", node_address="127.0.0.2", command=("ray",), boot="b")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path)


def saved(settings: Settings, **fields: object) -> ClusterFile:
    usual = {"address": "127.0.0.2:6379", "dashboard_url": "", "gateway_url": "", "processes": (GONE,)}
    cluster = ClusterFile.parse({**usual, **fields})
    cluster.save(settings.state_dir)
    return cluster


def test_the_file_is_its_owners_alone(settings: Settings) -> None:
    saved(settings)
    assert cluster_path(settings.state_dir).stat().st_mode & 0o777 == 0o600


def test_only_what_was_started_here_and_can_be_started_again_is_left_behind(settings: Settings) -> None:
    assert left_behind(settings) is None
    assert left_behind(settings) is None
    assert saved(settings) == left_behind(settings)
    for fields in ({"attached": True}, {"processes": ()}, {"processes": (GONE.model_copy(update={"command": ()}),)}):
        saved(settings, **fields)
        assert left_behind(settings) is None


def test_a_number_from_before_a_restart_of_the_machine_is_anothers() -> None:
    assert GONE.is_anothers()
    assert not GONE.model_copy(update={"boot": this_boot()}).is_anothers()


def test_going_on_that_fails_forgets_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object) -> StartedProcess:
        raise Unavailable("no head")

    before = saved(settings)
    monkeypatch.setattr(ray_process, "start_again", fails)
    for _ in range(2):
        with pytest.raises(Unavailable, match="no head"):
            launch.up(settings, UpOptions(), lambda what: None)
        assert read_cluster(settings.state_dir) == before


def test_a_head_that_is_left_behind_is_not_forgotten_by_joining_another(settings: Settings) -> None:
    saved(settings)
    with pytest.raises(Conflict, match="noodle up` goes on with it"):
        join(settings, "10.0.0.1:6379", JoinOptions(), lambda what: None)
    saved(settings, joined=True)
    refuse_if_left_behind(settings)


def test_tables_that_are_elsewhere_now_are_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"tables": str(settings.state_dir / "gcs"), "store": settings.store_name}
    refuse_other_tables(settings, saved(settings, **here))
    monkeypatch.setenv("RAY_REDIS_ADDRESS", "10.0.0.9:6379")
    with pytest.raises(Conflict, match=r"RAY_REDIS_ADDRESS leads to 10.0.0.9:6379"):
        refuse_other_tables(settings, saved(settings, **here))
    monkeypatch.delenv("RAY_REDIS_ADDRESS")
    elsewhere = settings.model_copy(update={"database_url": "postgresql://me:secret@db/noodle?x=y"})
    with pytest.raises(Conflict, match="NOODLE_DATABASE_URL leads to postgresql://db/noodle") as raised:
        refuse_other_tables(elsewhere, saved(settings, **here))
    assert "secret" not in str(raised.value)
    with pytest.raises(Conflict):
        launch.down(elsewhere, lambda what: None)
