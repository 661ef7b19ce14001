"""The ledger gives out only what is free, and takes back exactly what it gave."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from noodle_ray.errors import Conflict, NotFound
from noodle_ray.placement.ledger import CPUS, MEMORY, Holding, ResourcePool
from noodle_ray.resources import UNITS, Demand, NodeResources

GIB = 2**30


def pool_of(**nodes: NodeResources) -> ResourcePool:
    pool = ResourcePool()
    for name, resources in nodes.items():
        pool.add_node(name, resources)
    return pool


def one_gpu_node(gpus: int = 2) -> ResourcePool:
    return pool_of(a=NodeResources.of(cpus=8, memory="16GiB", gpus=gpus))


def test_gives_and_takes_back() -> None:
    pool = one_gpu_node()
    assert pool.allocate("x", "a", Demand(cpus=1.5, memory="2GiB", gpu_share=0.5)) == (0,)
    assert pool.free(CPUS).tolist() == [65_000]
    assert pool.free(MEMORY).tolist() == [14 * GIB]
    assert pool.gpu_free.tolist() == [[5_000, 10_000]]
    pool.deallocate("x")
    assert pool.free(CPUS).tolist() == [80_000]
    assert pool.gpu_free.tolist() == [[10_000, 10_000]]


def test_shares_fill_the_fullest_gpu_that_fits_as_ray_does() -> None:
    """.5, .25, .5, .75 and 1 on four GPUs land on 0, 0, 1, 2 and 3: what Ray itself picks."""
    pool = one_gpu_node(gpus=4)
    demands = [
        Demand(gpu_share=0.5),
        Demand(gpu_share=0.25),
        Demand(gpu_share=0.5),
        Demand(gpu_share=0.75),
        Demand(gpus=1),
    ]
    assert [pool.allocate(str(i), "a", demand) for i, demand in enumerate(demands)] == [(0,), (0,), (1,), (2,), (3,)]


def test_a_share_never_spans_two_gpus() -> None:
    pool = one_gpu_node()
    pool.allocate("x", "a", Demand(gpu_share=0.6))
    pool.allocate("y", "a", Demand(gpu_share=0.6))
    assert not pool.can_allocate("a", Demand(gpu_share=0.5))
    assert pool.can_allocate("a", Demand(gpu_share=0.4))
    assert not pool.can_allocate("a", Demand(gpus=1))


@pytest.mark.parametrize(
    ("demand", "dimension", "text"),
    [
        (Demand(cpus=9), "cpus", "cpus: wants 9, has 8"),
        (Demand(memory="17GiB"), "memory", "memory: wants 17GiB, has 16GiB"),
        (Demand(gpus=3), "gpus", "gpus: wants 3, has 2"),
        (Demand(custom={"tpu": 1}), "tpu", "tpu: wants 1, has 0"),
        (Demand(cpus=1, accelerator_type="A100"), "accelerator_type", "accelerator_type: wants A100, has none"),
        (Demand(cpus=1, labels={"zone": "b"}), "label zone", "label zone: wants b, has no such label"),
    ],
)
def test_says_what_is_short(demand: Demand, dimension: str, text: str) -> None:
    (short,) = one_gpu_node().shortfalls("a", demand)
    assert short.dimension == dimension
    assert str(short) == text


def test_says_what_is_short_on_a_full_gpu_and_a_cordoned_node() -> None:
    pool = one_gpu_node(gpus=1)
    pool.allocate("x", "a", Demand(gpu_share=0.7))
    pool.cordon("a", True)
    assert [str(short) for short in pool.shortfalls("a", Demand(gpu_share=0.5))] == [
        "gpu_share: wants 0.5, has 0.3 on one GPU",
        "cordoned: wants an open node, has cordoned",
    ]
    with pytest.raises(Conflict, match=r"gpu_share: wants 0\.5"):
        pool.allocate("y", "a", Demand(gpu_share=0.5))
    pool.cordon("a", False)
    assert pool.can_allocate("a", Demand(gpu_share=0.3))


@pytest.mark.parametrize(
    ("selector", "fits"),
    [("eu", True), ("!eu", False), ("in(eu,us)", True), ("!in(eu,us)", False), ("us", False), ("!us", True)],
)
def test_label_selectors(selector: str, fits: bool) -> None:
    pool = pool_of(a=NodeResources.of(cpus=1, labels={"zone": "eu"}))
    assert pool.can_allocate("a", Demand(cpus=1, labels={"zone": selector})) is fits


def test_what_others_use_counts_as_used() -> None:
    pool = one_gpu_node()
    pool.set_foreign("a", {CPUS: 75_000}, 15_000)
    assert not pool.can_allocate("a", Demand(cpus=1))
    assert pool.gpu_free.tolist() == [[0, 5_000]]
    pool.add_node("b", NodeResources.of(cpus=1, gpus=4))
    assert pool.gpu_free.tolist() == [[0, 5_000, 0, 0], [UNITS] * 4]
    pool.set_foreign("a", {}, 0)
    assert pool.can_allocate("a", Demand(cpus=8, gpus=2))


def test_small_foreign_pieces_block_every_gpu_they_may_be_on() -> None:
    pool = one_gpu_node()
    pool.allocate("x", "a", Demand(gpu_share=0.5))
    pool.allocate("y", "a", Demand(gpu_share=0.6))
    pool.set_foreign("a", {}, 7_000)
    assert pool.gpu_free.tolist() == [[0, 0]]


def test_a_removed_node_takes_its_allocations_with_it() -> None:
    pool = pool_of(a=NodeResources.of(cpus=2), b=NodeResources.of(cpus=2))
    pool.allocate("x", "a", Demand(cpus=1))
    pool.allocate("y", "b", Demand(cpus=1))
    assert pool.remove_node("a") == ("x",)
    assert pool.node_ids == ("b",)
    assert pool.free(CPUS).tolist() == [10_000]
    assert not pool.holds("x")


def test_restoring_books_even_what_no_longer_fits() -> None:
    pool = pool_of(a=NodeResources.of(cpus=1))
    pool.restore("x", Holding("a", Demand(cpus=2, custom={"gone": 1}), (3,)))
    assert pool.free(CPUS).tolist() == [0]
    assert pool.free("gone").tolist() == [0]
    with pytest.raises(Conflict):
        pool.restore("x", Holding("a", Demand(cpus=1), ()))
    pool.deallocate("x")
    assert pool.free(CPUS).tolist() == [10_000]


def test_refuses_what_makes_no_sense() -> None:
    pool = one_gpu_node()
    with pytest.raises(Conflict, match="in the ledger already"):
        pool.add_node("a", NodeResources())
    with pytest.raises(NotFound, match="no node 'z'"):
        pool.can_allocate("z", Demand(cpus=1))
    with pytest.raises(NotFound, match="no allocation 'x'"):
        pool.deallocate("x")
    pool.allocate("x", "a", Demand(cpus=1))
    with pytest.raises(Conflict, match="held already"):
        pool.allocate("x", "a", Demand(cpus=1))


shares = st.sampled_from([0.1, 0.25, 0.3, 0.5, 0.75, 0.9])
demands = st.one_of(
    st.builds(lambda c, m: Demand(cpus=c, memory=m), st.sampled_from([0.1, 0.5, 1, 3]), st.integers(0, 4 * GIB)),
    st.builds(lambda s, c: Demand(gpu_share=s, cpus=c), shares, st.sampled_from([0, 0.5])),
    st.builds(lambda n: Demand(gpus=n), st.integers(1, 3)),
    st.builds(lambda n: Demand(custom={"disk": n}), st.sampled_from([0.5, 1])),
)
nodes = st.builds(
    lambda c, m, g, d: NodeResources.of(cpus=c, memory=m * GIB, gpus=g, custom_units={"disk": d * UNITS} if d else {}),
    st.integers(0, 8),
    st.integers(0, 16),
    st.integers(0, 4),
    st.integers(0, 2),
)


@given(resources=nodes, wanted=st.lists(demands, max_size=8))
def test_freeing_everything_restores_exactly(resources: NodeResources, wanted: list[Demand]) -> None:
    pool, fresh = pool_of(a=resources), pool_of(a=resources)
    given_out = []
    for i, demand in enumerate(wanted):
        if pool.can_allocate("a", demand):
            pool.allocate(str(i), "a", demand)
            given_out.append(str(i))
    for key in given_out:
        pool.deallocate(key)
    assert {d: pool.free(d).tolist() for d in pool.dimensions} == {d: fresh.free(d).tolist() for d in fresh.dimensions}
    assert pool.gpu_free.tolist() == fresh.gpu_free.tolist()


class LedgerHistory(RuleBasedStateMachine):
    """Any history of nodes coming and going and demands placed and freed, against a bookkeeping in plain sums."""

    allocations = Bundle("allocations")

    def __init__(self) -> None:
        super().__init__()
        self.pool = ResourcePool()
        self.nodes: dict[str, NodeResources] = {}
        self.held: dict[str, Holding] = {}
        self.count = 0

    @rule(resources=nodes)
    def add_node(self, resources: NodeResources) -> None:
        self.count += 1
        self.pool.add_node(f"n{self.count}", resources)
        self.nodes[f"n{self.count}"] = resources

    @rule(data=st.data())
    def remove_node(self, data: st.DataObject) -> None:
        if self.nodes:
            node = data.draw(st.sampled_from(sorted(self.nodes)))
            lost = self.pool.remove_node(node)
            assert set(lost) == {key for key, holding in self.held.items() if holding.node_id == node}
            self.held = {key: holding for key, holding in self.held.items() if holding.node_id != node}
            del self.nodes[node]

    @rule(target=allocations, demand=demands, data=st.data())
    def allocate(self, demand: Demand, data: st.DataObject) -> str:
        self.count += 1
        key = f"a{self.count}"
        if self.nodes:
            node = data.draw(st.sampled_from(sorted(self.nodes)))
            if self.pool.can_allocate(node, demand):
                indices = self.pool.allocate(key, node, demand)
                assert len(set(indices)) == demand.gpu_count
                self.held[key] = Holding(node, demand, indices)
            else:
                assert self.pool.shortfalls(node, demand)
        return key

    @rule(key=allocations)
    def deallocate(self, key: str) -> None:
        if self.held.pop(key, None) is not None:
            self.pool.deallocate(key)

    @invariant()
    def nothing_is_over_allocated_and_the_sums_agree(self) -> None:
        for node, resources in self.nodes.items():
            row = self.pool.node_ids.index(node)
            mine = [holding for holding in self.held.values() if holding.node_id == node]
            cpus = sum(holding.demand.cpu_units for holding in mine)
            assert cpus <= resources.cpu_units
            assert int(self.pool.free(CPUS)[row]) == resources.cpu_units - cpus
            assert sum(holding.demand.memory for holding in mine) <= resources.memory_bytes
            for index in range(resources.gpus):
                used = sum(holding.demand.gpu_units for holding in mine if index in holding.gpu_indices)
                assert used <= UNITS
                assert int(self.pool.gpu_free[row, index]) == UNITS - used


TestLedgerHistory = LedgerHistory.TestCase
