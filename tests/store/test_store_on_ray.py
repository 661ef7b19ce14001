"""A cluster that keeps its promises in PostgreSQL: the server crashes, the manager too, and nothing is forgotten."""

from __future__ import annotations

import os
from collections.abc import Iterator
from unittest import mock

import psycopg
import pytest
import ray

from noodle_ray.actors import names
from noodle_ray.actors.ray_errors import get
from noodle_ray.entry.bench.nodes_fleet import Fleet, fleet, wait_for
from noodle_ray.entry.bench.postgres_server import PostgresServer
from noodle_ray.errors import NoodleError
from noodle_ray.placement.claim import Claim, new_claim_id
from noodle_ray.placement.request import Request
from noodle_ray.resources import Demand
from noodle_ray.services.directory import Registration
from noodle_ray.store.connecting import POOLS
from noodle_ray.store.health import StoreHealth

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def running(postgres: PostgresServer) -> Iterator[Fleet]:
    with mock.patch.dict(os.environ, NOODLE_DATABASE_URL=postgres.url), fleet(1, lambda what: None) as started:
        yield started


@pytest.fixture
def cluster(running: Fleet, postgres: PostgresServer) -> Iterator[Fleet]:
    yield running
    postgres.stop()
    postgres.start()
    wait_for("the store to be there", lambda: answers(running), 60)
    for allocation in running.ask("allocations"):
        running.ask("release", allocation.id)


def answers(cluster: Fleet) -> bool:
    try:
        return not is_away(cluster)
    except NoodleError:  # it is being started
        return False


def is_away(cluster: Fleet) -> bool:
    health: StoreHealth = cluster.ask("store_health")
    return health.is_away


def claim() -> Claim:
    return Claim(id=new_claim_id(), request=Request.of(Demand(cpus=0.25)))


def test_what_is_decided_while_the_store_is_away_waits_for_it(cluster: Fleet, postgres: PostgresServer) -> None:
    held = cluster.claim("fail")
    directory = ray.get_actor(names.SERVICE_DIRECTORY, names.NAMESPACE)
    postgres.stop(crash=True)
    wait_for("the manager to see that the store is away", lambda: is_away(cluster), 30)
    waiting = [
        cluster.manager.allocate.remote(claim()),
        cluster.manager.release.remote(held.id),
        directory.register.remote(Registration(name="late", address="a")),
    ]
    assert ray.wait(waiting, num_returns=3, timeout=1.0)[0] == []
    assert {node.state for node in cluster.ask("nodes")} == {"alive"}  # what is known is told all the same
    postgres.start()
    allocation, _, service = [get(one, timeout_s=60) for one in waiting]
    assert (allocation.state, service.name) == ("held", "late")
    assert not is_away(cluster)
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute("SELECT key FROM allocations").fetchall() == [(allocation.id,)]
        assert connection.execute("SELECT key FROM services").fetchall() == [("late",)]
        ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'noodle-ray %'"
        assert 0 < connection.execute(ours).fetchall()[0][0] <= sum(POOLS.values())


def test_a_manager_that_is_started_while_the_store_is_away_waits_for_it(
    cluster: Fleet, postgres: PostgresServer
) -> None:
    held = cluster.claim("fail")
    postgres.stop(crash=True)
    cluster.kill_manager()
    with pytest.raises(NoodleError):
        get(cluster.manager.ping.remote(), timeout_s=5)
    postgres.start()
    wait_for("the manager to be there again", lambda: answers(cluster), 60)
    assert [(one.id, one.state) for one in cluster.ask("allocations")] == [(held.id, "held")]
