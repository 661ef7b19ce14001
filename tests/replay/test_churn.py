"""Arrivals and departures by hand: who waits, who overtakes, who gives up, and what is held meanwhile."""

import gzip
import math
from pathlib import Path

import pytest

from noodle_ray.errors import InvalidInput, NotFound
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.replay.churn import ChurnRun, replay_churn
from noodle_ray.replay.instances import Instance, fleet_short_of_gpus, peak, read_instances
from noodle_ray.resources import Demand, NodeResources

ONE, TWO, CPU = Demand(gpus=1), Demand(gpus=2), Demand(cpus=1)
HEADER = (
    "instance_sn,role,app_name,cpu_request,gpu_request,rdma_request,memory_request,disk_request,"
    "max_instance_per_node,creation_time,scheduled_time,deletion_time\n"
)


def played(*instances: Instance, gpus: int = 2, patience_s: float = 1000.0, contender: str = "best-fit") -> ChurnRun:
    pool = ResourcePool()
    pool.add_node("only", NodeResources.of(cpus=1, gpus=gpus))
    return replay_churn(instances, pool, contender, seed=0, patience_s=patience_s)


@pytest.mark.parametrize("contender", ["noodle", "noodle-learning", "best-fit", "fgd", "ray-hybrid"])
def test_who_does_not_fit_waits_until_somebody_leaves(contender: str) -> None:
    run = played(Instance(TWO, 0.0, 10.0), Instance(ONE, 4.0, 20.0), contender=contender)
    assert run.with_gpus.waited_mean_s == 3.0  # 0 and 6
    assert run.with_gpus.waited_p99_s == 6.0
    assert run.with_gpus.rejected_percent == 0
    # The trace ends at 24: two GPUs for 10 s, then one for 14 s, of two for 24 s.
    assert run.gpu_allocated_percent == pytest.approx(100 * (20 + 14) / 48)
    # Unhindered: 2 until 4, then 3 of which there are 2 until 10, then 1.
    assert run.gpu_asked_percent == pytest.approx(100 * (20 + 14) / 48)


def test_who_fits_may_overtake_but_is_not_asked_first() -> None:
    pairs = Instance(TWO, 1.0, 5.0), Instance(TWO, 3.0, 5.0)
    run = played(Instance(ONE, 0.0, 10.0), *pairs, Instance(ONE, 2.0, 30.0), Instance(CPU, 0.0, 100.0))
    assert run.with_gpus.waited_mean_s == (0 + 31 + 0 + 34) / 4  # the first pair at 32, the second at 37
    run = played(Instance(TWO, 0.0, 10.0), pairs[0], Instance(ONE, 2.0, 5.0), Instance(CPU, 0.0, 100.0))
    assert run.with_gpus.waited_mean_s == (0 + 9 + 13) / 3  # the pair came first


def test_who_has_waited_too_long_gives_up() -> None:
    run = played(Instance(TWO, 0.0, 100.0), Instance(ONE, 1.0, 50.0), Instance(CPU, 1.0, 5.0), patience_s=60.0)
    assert run.with_gpus.rejected_percent == 50
    assert run.with_gpus.waited_mean_s == 30  # 0 and 60
    assert (run.without_gpus.instances, run.without_gpus.rejected_percent, run.without_gpus.waited_mean_s) == (1, 0, 0)
    assert run.gpu_allocated_percent == 100


def test_what_ran_from_the_beginning_comes_first_and_may_outlive_the_trace() -> None:
    run = played(Instance(ONE, 0.0, 10.0), Instance(TWO, None, math.inf))
    assert run.with_gpus.rejected_percent == 50
    assert run.gpu_allocated_percent == 100


def test_who_still_waits_at_the_end_was_rejected() -> None:
    run = played(Instance(TWO, 0.0, 20.0), Instance(TWO, 5.0, 5.0), Instance(TWO, 7.0, 5.0))
    assert run.with_gpus.rejected_percent == pytest.approx(100 / 3)  # the second one starts in the last moment
    assert run.with_gpus.waited_mean_s == (0 + 15 + 13) / 3


def test_nothing_at_all_is_no_division_by_zero() -> None:
    assert played().gpu_allocated_percent == 0


def write(path: Path, *rows: str) -> Path:
    text = HEADER + "".join(f"{row}\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["d.csv", "d.csv.gz"])
def test_instances_are_read(tmp_path: Path, name: str) -> None:
    path = write(
        tmp_path / name,
        "i0,HN,app_7,12,1,25,120.0,640.0,8,,,",
        "i1,HN,app_7,12,1,25,120.0,640.0,8,5.5,7.25,20.25",
        "i2,CN,app_7,64,0,1,937.5,85.0,-1,5,5,",
        "i3,CN,app_7,64,0,1,937.5,85.0,3,,,9",
    )
    first, second, third, fourth = read_instances(path)
    assert first == Instance(first.demand, None, math.inf)
    assert (second.arrives_s, second.runs_s, second.demand is first.demand) == (5.5, 13.0, True)
    assert (third.arrives_s, third.runs_s) == (5, math.inf)
    assert (fourth.arrives_s, fourth.runs_s) == (None, 9)
    assert first.demand == Demand(cpus=12, memory="120GiB", gpus=1, custom={"rdma": 25, "disk": 640, "app_7.HN": 0.125})
    assert third.demand == Demand(cpus=64, memory=int(937.5 * 2**30), custom={"rdma": 1, "disk": 85})
    assert fourth.demand.custom["app_7.CN"] == 0.3333


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ("i,HN,a,12,1,25,120,640,8,x,1,2", "line 2, creation_time: must be a number from 0"),
        ("i,HN,a,12,1,25,120,640,8,1,5,2", "line 2, deletion_time: must be a number from 5"),
        ("i,HN,a,twelve,1,25,120,640,8,,,", "line 2, cpu_request"),
        ("i,HN,a,12,9,25,120,640,8,,,", "line 2, gpu_request: must be a whole number from 0 to 8"),
        ("i,HN,a,12,1,25,nan,640,8,,,", "line 2, memory_request"),
    ],
)
def test_a_malformed_instance_is_named(tmp_path: Path, row: str, part: str) -> None:
    with pytest.raises(InvalidInput, match=part):
        read_instances(write(tmp_path / "d.csv", row))
    with pytest.raises(NotFound, match="nowhere"):
        read_instances(tmp_path / "nowhere.csv")


def test_a_node_takes_no_more_of_an_application_than_it_may() -> None:
    apart = Demand(gpus=1, custom={"app.HN": 0.5})
    pool = ResourcePool()
    pool.add_node("only", NodeResources.of(cpus=1, gpus=8, custom_units={"app.HN": 10_000}))
    run = replay_churn([Instance(apart, 0.0, 10.0)] * 3, pool, "noodle", seed=0)
    assert run.with_gpus.waited_mean_s == pytest.approx(10 / 3)


def test_the_fleet_is_short_of_gpus_and_of_nothing_else() -> None:
    with_gpu = Demand(cpus=4, memory=400, gpus=1, custom={"rdma": 25, "app.HN": 0.5})
    without = Demand(cpus=32, memory=3200, custom={"rdma": 1})
    instances = [Instance(with_gpu, float(n), 1000.0) for n in range(84)] + [Instance(without, 1.0, 9.0)] * 18
    assert peak(instances, [instance.demand.gpus for instance in instances]) == 84
    pool = fleet_short_of_gpus(instances, seed=3)
    nodes = [pool.columns.resources(row) for row in range(len(pool.columns))]
    large = [node for node in nodes if node.gpus]
    small = [node for node in nodes if not node.gpus]
    assert sum(node.gpus for node in large) == 80  # 84 / 1.05
    assert sum(node.cpu_units for node in large) / 10_000 == pytest.approx(84 * 4 / 0.9, abs=0.01)
    assert {node.custom_units["app.HN"] for node in large} == {10_000}
    assert (len(small), small[0].cpu_units) == (10, 640_000)  # 18 x 32 / .9 CPUs, 64 a node
    assert small[0].memory_bytes >= 6400
    assert list(fleet_short_of_gpus(instances, seed=4).node_ids) != list(pool.node_ids)


def test_the_public_trace(traces_dir: Path) -> None:
    instances = read_instances(traces_dir / "dlrm2025" / "disaggregated_DLRM_trace.csv.gz")
    assert len(instances) == 23_871
    assert sum(instance.arrives_s is None for instance in instances) == 7280
    assert sum(instance.demand.gpus for instance in instances) == 7386
    assert len({id(instance.demand) for instance in instances}) < 1000
