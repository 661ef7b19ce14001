"""Real raylets killed, frozen, stalled and drained: what they held goes on elsewhere, nothing is lost or leaks."""

import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from noodle_ray.actors import ray_state
from noodle_ray.entry.aio import Held
from noodle_ray.entry.bench.nodes_fleet import Fleet, fleet, wait_for
from noodle_ray.entry.cluster import ray_process
from noodle_ray.entry.cluster.components import start_node_manager
from noodle_ray.errors import NotFound
from noodle_ray.nodes.membership import Node
from noodle_ray.placement.allocation import Allocation
from noodle_ray.placement.claim import Claim, new_claim_id
from noodle_ray.placement.request import Request
from noodle_ray.resources import Demand

pytestmark = pytest.mark.ray

DEAD = {"node_dead"}
SLOW_RAY = {"RAY_health_check_failure_threshold": "20"}
"""Ray is made slow to find dead nodes, so that what is seen here is ours, and a frozen node may come back."""


@pytest.fixture(scope="module")
def running() -> Iterator[Fleet]:
    before = dict(ray_process.RAY_SETTINGS)
    ray_process.RAY_SETTINGS.update(SLOW_RAY)
    try:
        with fleet(3, lambda what: None) as started:
            yield started
    finally:
        ray_process.RAY_SETTINGS.update(before)


@pytest.fixture
def cluster(running: Fleet) -> Iterator[Fleet]:
    """The fleet, whole; whatever a test holds is released, and nothing of it is left in the ledger or in Ray."""
    yield running
    for slot in running.slots:
        if running.node_in(slot) is None:
            running.replace(slot)
    running.settle()
    for allocation in running.ask("allocations"):
        running.ask("release", allocation.id)
    wait_for("all to be free", lambda: running.leaked_units() == 0, 30)


@ray.remote
class Counter:
    def node(self) -> str:
        return ray.get_runtime_context().get_node_id()


def slot_of(cluster: Fleet, node_id: str) -> int:
    return next(slot for slot in cluster.slots if (node := cluster.node_in(slot)) and node.id == node_id)


def where_most_is(cluster: Fleet, held: list[Allocation]) -> tuple[int, Node]:
    nodes = [(slot, node) for slot in cluster.slots if (node := cluster.node_in(slot)) is not None]
    return max(nodes, key=lambda one: sum(allocation.node_id == one[1].id for allocation in held))


def wait_for_leaving(cluster: Fleet, node: Node) -> None:
    """Until Ray has let it go, and the manager has seen that."""
    wait_for("the node to leave Ray", lambda: node.id not in ray_state.live_nodes(), 30)
    wait_for("its leaving to be seen", lambda: node.id not in {one.id for one in cluster.ask("nodes")}, 10)


def state_of(cluster: Fleet, allocation: Allocation) -> str:
    return str(cluster.ask("allocation", allocation.id).state)


def test_what_a_killed_node_held_is_told_held_anew_or_goes_on_in_its_second_home(cluster: Fleet) -> None:
    fails = [cluster.claim("fail", 3.0) for _ in range(4)]
    restarts = [cluster.claim("restart", 1.0) for _ in range(3)]
    standbys = [cluster.claim("standby", 1.0) for _ in range(2)]
    everything = [*fails, *restarts, *standbys]
    wait_for("second homes", lambda: all(cluster.ask("allocation", one.id).spare.ready for one in standbys), 20)
    slot, node = where_most_is(cluster, everything)
    spares = {one.id: cluster.ask("allocation", one.id).spare.epoch for one in standbys}
    since = cluster.last_event()
    cluster.signal(slot, signal.SIGKILL)
    cluster.first_event(since, node.id, DEAD, 10)
    for one in (one for one in everything if one.node_id == node.id):
        if one.on_loss == "fail":
            assert state_of(cluster, one) == "lost"
            continue
        cluster.held_anew(one, 20)
        now = cluster.ask("allocation", one.id)
        assert now.node_id != node.id
        assert one.on_loss == "restart" or now.epoch == spares[one.id]
    for one in (one for one in everything if one.node_id != node.id):
        assert cluster.ask("allocation", one.id).group == one.group


def has_died(actor: Any) -> bool:
    try:
        ray.get(actor.node.remote(), timeout=20)
    except ray.exceptions.ActorDiedError:
        return True
    except ray.exceptions.ActorUnavailableError:
        pass
    return False


def test_a_frozen_node_is_suspected_then_dead_and_fenced_when_it_comes_back(cluster: Fleet) -> None:
    first = cluster.claim("restart", 2.0)
    slot = slot_of(cluster, first.node_id)
    work = Counter.options(num_cpus=1, scheduling_strategy=Held(first).options()["scheduling_strategy"]).remote()
    assert ray.get(work.node.remote()) == first.node_id
    since = cluster.last_event()
    cluster.signal(slot, signal.SIGSTOP)
    cluster.first_event(since, first.node_id, {"node_suspect"}, 10)
    assert cluster.claim("fail", 2.0).node_id != first.node_id, "nothing new is placed on a suspected node"
    cluster.first_event(since, first.node_id, DEAD, 10)
    cluster.held_anew(first, 20)
    since = cluster.last_event()
    cluster.signal(slot, signal.SIGCONT)
    cluster.first_event(since, first.node_id, {"node_alive"}, 20)
    wait_for("its old group to be gone", lambda: ray_state.group_named(first.group) is None, 20)
    # Ray says that a group is gone before it has ended what ran in it.
    wait_for("what ran in it to have ended", lambda: has_died(work), 20)
    assert cluster.ask("allocation", first.id).node_id != first.node_id


def test_a_stall_of_two_seconds_kills_nobody(cluster: Fleet) -> None:
    held = [cluster.claim("fail", 2.0) for _ in range(6)]
    since = cluster.last_event()
    for slot in cluster.slots:
        cluster.signal(slot, signal.SIGSTOP)
        time.sleep(2)
        cluster.signal(slot, signal.SIGCONT)
        time.sleep(1.5)
    assert cluster.events(since, "node_dead") == []
    assert [cluster.ask("allocation", one.id).group for one in held] == [one.group for one in held]


def test_a_killed_agent_comes_back_and_its_node_stays(cluster: Fleet) -> None:
    held = cluster.claim("fail", 2.0)
    node = cluster.ask("node", held.node_id)
    since = cluster.last_event()
    cluster.kill_agent(slot_of(cluster, node.id))
    cluster.first_event(since, node.id, {"node_suspect"}, 10)
    cluster.first_event(since, node.id, {"node_alive"}, 30)
    assert cluster.events(since, "node_dead") == []
    assert cluster.ask("allocation", held.id).group == held.group


def test_a_restarted_manager_goes_on_watching(cluster: Fleet) -> None:
    held = cluster.claim("restart", 2.0)
    cluster.kill_manager()
    # As in a cluster that is started again after its head has died: it is asked while Ray starts it anew.
    start_node_manager(cluster.settings)
    cluster.settle()
    since = cluster.last_event()
    cluster.signal(slot_of(cluster, held.node_id), signal.SIGKILL)
    cluster.first_event(since, held.node_id, DEAD, 10)
    cluster.held_anew(held, 20)
    assert cluster.ask("allocation", held.id).node_id != held.node_id


def test_a_drained_node_is_left_start_before_stop_and_leaves(cluster: Fleet) -> None:
    request = Request(bundles=(Demand(cpus=2),), movable=True)
    moves: Allocation = cluster.ask("allocate", Claim(id=new_claim_id(), request=request))
    node = cluster.ask("node", moves.node_id)
    cluster.ask("drain", node.id, 60.0)
    wait_for("a second home", lambda: _has_ready_spare(cluster, moves), 20)
    assert ray_state.group_named(moves.group) is not None, "the first home stands until the work is in the second"
    since = cluster.last_event()
    cluster.ask("move_confirmed", moves.id, cluster.ask("allocation", moves.id).spare.epoch)
    assert cluster.ask("allocation", moves.id).node_id != node.id
    cluster.first_event(since, node.id, {"node_drained"}, 20)
    wait_for_leaving(cluster, node)
    assert state_of(cluster, moves) == "held"


def test_nodes_are_registered_updated_and_unregistered_by_their_id(cluster: Fleet) -> None:
    node = cluster.node_in(0)
    assert node is not None
    assert cluster.ask("register_node", node.id).id == node.id
    with pytest.raises(NotFound, match="node"):
        cluster.ask("register_node", "0" * 56)
    assert cluster.ask("update_node", node.id, None, {"zone": "a"}).resources.labels["zone"] == "a"
    cluster.ask("unregister_node", node.id)
    wait_for_leaving(cluster, node)


def _has_ready_spare(cluster: Fleet, allocation: Allocation) -> bool:
    spare = cluster.ask("allocation", allocation.id).spare
    return spare is not None and bool(spare.ready)
