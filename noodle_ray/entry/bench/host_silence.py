"""How fast frozen hosts are suspected and their work is held anew; who is held for dead where packets are lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx

from noodle_ray.entry.bench.host_cluster import HostCluster
from noodle_ray.entry.bench.host_links import THIN_LINEAR, losing, thin_linear
from noodle_ray.entry.bench.report import Row
from noodle_ray.entry.bench.timing import percentile
from noodle_ray.errors import DeadlineExceeded, NoodleError
from noodle_ray.nodes.event_log import ClusterEvent

GOALS_MS = {"suspect_silent": 3000.0, "recover_silent": 5000.0}
OUTER_S, HEAL_S = 20.0, 120.0
LOSS_PERCENT = 20
DEATHS = ("node_dead", "node_left")


def silences(cluster: HostCluster, trials: int, say: Callable[[str], None]) -> Iterator[Row]:
    """Freezes, again and again, the host that holds a CPU, until that is held elsewhere."""
    taken: dict[str, list[float]] = {name: [] for name in GOALS_MS}
    missed = 0
    for number in range(trials):
        say(f"silence {number + 1} of {trials}")
        _whole(cluster)
        try:
            for name, ms in _silence(cluster).items():
                taken[name].append(ms)
        except (NoodleError, httpx.HTTPError) as error:
            say(f"missed: {error}")
            missed += 1
    for name, goal in GOALS_MS.items():
        for percent in (50, 99):
            if taken[name]:
                value, context = percentile(taken[name], percent), {"trials": len(taken[name])}
                is_goal = goal if percent == 99 else None
                yield Row(metric=f"{name}_ms_p{percent}", value=value, unit="ms", goal=is_goal, context={**context})
    yield Row(metric="silences_missed", value=missed, unit="", goal=0, context={"trials": trials})


def _silence(cluster: HostCluster) -> dict[str, float]:
    held = cluster.hold(1)
    host, number = cluster.host_of(held.node_id), _last_event(cluster)
    frozen_at = time.time()
    host.freeze()
    try:
        cluster.wait_for("it to be held anew", lambda: cluster.allocation(held.id).epoch > held.epoch, OUTER_S)
        cluster.wait_for("it to be held", lambda: cluster.allocation(held.id).state == "held", OUTER_S)
    finally:
        host.thaw()
        cluster.release(held.id)
    later = [event for event in cluster.events() if event.number > number]
    suspected = _first(later, "node_suspect", "node", held.node_id)
    anew = _first(later, "held_anew", "allocation", held.id)
    return {"suspect_silent": (suspected - frozen_at) * 1000, "recover_silent": (anew - frozen_at) * 1000}


def _last_event(cluster: HostCluster) -> int:
    return max((event.number for event in cluster.events()), default=0)


def _first(events: list[ClusterEvent], kind: str, detail: str, value: str) -> float:
    """Raises DeadlineExceeded where there is none."""
    for event in events:
        if event.kind == kind and event.details.get(detail) == value:
            return event.at
    raise DeadlineExceeded(f"seeing {kind} of {value}", OUTER_S * 1000)


def _whole(cluster: HostCluster) -> None:
    cluster.wait_for("all nodes to be watched", lambda: len(cluster.watched()) == len(cluster.hosts), HEAL_S)


def losses(cluster: HostCluster, seconds: float, say: Callable[[str], None]) -> Iterator[Row]:
    """A fifth of all packets that come to any host is lost for a while: nobody is dead, so nobody is to be held so.

    Once as Linux comes, and once with waits before a packet is sent again that do not double at once.
    """
    for linear in (0, 1):
        _whole(cluster)
        say(f"{LOSS_PERCENT} % of all packets are lost for {seconds:g} s, {THIN_LINEAR}={linear}")
        before = _last_event(cluster)
        with ExitStack() as broken:
            for host in cluster.hosts:
                broken.enter_context(thin_linear(host, linear))
                broken.enter_context(losing(host, LOSS_PERCENT))
            time.sleep(seconds)
        deaths = sum(event.number > before for event in cluster.events(*DEATHS))
        context = {"loss_percent": LOSS_PERCENT, "seconds": seconds, "hosts": len(cluster.hosts), THIN_LINEAR: linear}
        yield Row(metric="false_deaths", value=deaths, unit="", goal=0, context={**context})
