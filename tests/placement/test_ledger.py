"""The ledger gives out only what is free, and takes back exactly what it gave."""

import pytest
from fleets import GIB, demands, nodes, pool_of
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle as Keys
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from noodle_ray.errors import Conflict, NotFound
from noodle_ray.placement.allocation import Bundle
from noodle_ray.placement.columns import CPUS, MEMORY
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.resources import UNITS, Demand, NodeResources


def give(pool: ResourcePool, key: str, node_id: str, demand: Demand) -> tuple[int, ...]:
    return pool.allocate(key, [(node_id, demand)])[0].gpu_indices


def one_gpu_node(gpus: int = 2) -> ResourcePool:
    return pool_of(a=NodeResources.of(cpus=8, memory="16GiB", gpus=gpus))


def test_gives_and_takes_back() -> None:
    pool = one_gpu_node()
    assert give(pool, "x", "a", Demand(cpus=1.5, memory="2GiB", gpu_share=0.5)) == (0,)
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
    assert [give(pool, str(i), "a", demand) for i, demand in enumerate(demands)] == [(0,), (0,), (1,), (2,), (3,)]


def test_a_share_never_spans_two_gpus() -> None:
    pool = one_gpu_node()
    give(pool, "x", "a", Demand(gpu_share=0.6))
    give(pool, "y", "a", Demand(gpu_share=0.6))
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
    give(pool, "x", "a", Demand(gpu_share=0.7))
    pool.cordon("a", True)
    assert [str(short) for short in pool.shortfalls("a", Demand(gpu_share=0.5))] == [
        "gpu_share: wants 0.5, has 0.3 on one GPU",
        "cordoned: wants an open node, has cordoned",
    ]
    with pytest.raises(Conflict, match=r"gpu_share: wants 0\.5"):
        give(pool, "y", "a", Demand(gpu_share=0.5))
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
    give(pool, "x", "a", Demand(gpu_share=0.5))
    give(pool, "y", "a", Demand(gpu_share=0.6))
    pool.set_foreign("a", {}, 7_000)
    assert pool.gpu_free.tolist() == [[0, 0]]


def test_a_removed_node_takes_its_allocations_with_it() -> None:
    pool = pool_of(a=NodeResources.of(cpus=2), b=NodeResources.of(cpus=2))
    give(pool, "x", "a", Demand(cpus=1))
    give(pool, "y", "b", Demand(cpus=1))
    assert pool.remove_node("a") == ("x",)
    assert pool.node_ids == ("b",)
    assert pool.free(CPUS).tolist() == [10_000]
    assert not pool.holds("x")


def test_restoring_books_even_what_no_longer_fits() -> None:
    pool = pool_of(a=NodeResources.of(cpus=1))
    pool.restore("x", [Bundle(demand=Demand(cpus=2, custom={"gone": 1}), node_id="a", gpu_indices=(3,))])
    assert pool.free(CPUS).tolist() == [0]
    assert pool.free("gone").tolist() == [0]
    with pytest.raises(Conflict):
        pool.restore("x", [Bundle(demand=Demand(cpus=1), node_id="a")])
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
    give(pool, "x", "a", Demand(cpus=1))
    with pytest.raises(Conflict, match="held already"):
        give(pool, "x", "a", Demand(cpus=1))


def test_several_bundles_are_given_together_or_not_at_all() -> None:
    pool = pool_of(a=NodeResources.of(cpus=2), b=NodeResources.of(cpus=1))
    with pytest.raises(Conflict, match="node b cannot take 2 CPU"):
        pool.allocate("x", [("a", Demand(cpus=1)), ("b", Demand(cpus=2))])
    assert pool.free(CPUS).tolist() == [20_000, 10_000]
    pool.allocate("x", [("a", Demand(cpus=1)), ("b", Demand(cpus=1))])
    assert pool.remove_node("b") == ("x",)
    assert pool.free(CPUS).tolist() == [20_000]


def test_work_that_stays_apart_blocks_its_nodes_for_its_like() -> None:
    pool = pool_of(a=NodeResources.of(cpus=4), b=NodeResources.of(cpus=4))
    pool.allocate("x", [("a", Demand(cpus=1))], anti_affinity="db")
    assert pool.failures(Demand(cpus=1), anti_affinity="db")["anti_affinity"].tolist() == [True, False]
    assert "anti_affinity" not in pool.failures(Demand(cpus=1), anti_affinity="web")
    pool.deallocate("x")
    assert "anti_affinity" not in pool.failures(Demand(cpus=1), anti_affinity="db")


def test_an_earmarked_node_is_kept_for_one() -> None:
    pool = pool_of(a=NodeResources.of(cpus=4))
    pool.earmark(["a"], "big")
    assert pool.failures(Demand(cpus=1))["earmarked"].tolist() == [True]
    assert "earmarked" not in pool.failures(Demand(cpus=1), for_id="big")
    assert [str(short) for short in pool.shortfalls("a", Demand(cpus=1))] == [
        "earmarked: wants an open node, has earmarked"
    ]
    pool.allocate("big", [("a", Demand(cpus=4))])
    pool.earmark(["a"], None)
    assert pool.earmarks == {}


def test_a_bundle_follows_to_the_gpu_that_ray_picked() -> None:
    pool = one_gpu_node()
    give(pool, "x", "a", Demand(gpu_share=0.6))
    pool.correct_gpus("x", 0, (1,))
    assert pool.gpu_free.tolist() == [[10_000, 4_000]]
    assert pool.bundles("x")[0].gpu_indices == (1,)
    pool.deallocate("x")
    assert pool.gpu_free.tolist() == [[10_000, 10_000]]
    with pytest.raises(NotFound):
        pool.bundles("x")


def test_counts_what_asks_for_the_same_gpu() -> None:
    pool = one_gpu_node()
    give(pool, "x", "a", Demand(gpu_share=0.5, cpus=1))
    assert pool.alike(Demand(gpu_share=0.5)).tolist() == [1]
    assert pool.alike(Demand(gpus=1)).tolist() == [0]
    pool.deallocate("x")
    assert pool.alike(Demand(gpu_share=0.5)).tolist() == [0]


@pytest.mark.parametrize(("selector", "fits"), [("in(A100,L4)", True), ("T4", False), ("!T4", True)])
def test_a_selector_on_rays_accelerator_label_is_a_condition_on_the_type(selector: str, fits: bool) -> None:
    pool = pool_of(a=NodeResources.of(cpus=1, gpus=1, accelerator_type="A100"))
    demand = Demand(gpus=1, labels={"ray.io/accelerator-type": selector})
    assert pool.can_allocate("a", demand) is fits
    if not fits:
        assert str(pool.shortfalls("a", demand)[0]) == "accelerator_type: wants T4, has A100"


def test_many_nodes_come_and_go() -> None:
    """Rows move when nodes leave; labels, types and custom resources move with them."""
    pool = ResourcePool()
    for number in range(40):
        resources = NodeResources.of(
            cpus=number,
            gpus=number % 3,
            accelerator_type=f"T{number % 2}",
            labels={"zone": f"z{number % 4}"},
            custom_units={f"disk{number % 5}": UNITS},
        )
        pool.add_node(f"n{number}", resources)
    demand = Demand(cpus=1, accelerator_type="T1", labels={"zone": "z3"})
    pool.can_allocate("n3", demand)  # the column of zones is made here, and kept from here on
    for number in range(0, 40, 2):
        pool.remove_node(f"n{number}")
    fitting = {node for node in pool.node_ids if pool.can_allocate(node, demand)}
    assert fitting == {f"n{number}" for number in range(1, 40, 2) if number % 4 == 3}
    for node in pool.node_ids:
        row = pool.columns.row[node]
        assert pool.total(CPUS)[row] == int(node[1:]) * UNITS
        assert pool.total(f"disk{int(node[1:]) % 5}")[row] == UNITS


@given(resources=nodes, wanted=st.lists(demands, max_size=8))
def test_freeing_everything_restores_exactly(resources: NodeResources, wanted: list[Demand]) -> None:
    pool, fresh = pool_of(a=resources), pool_of(a=resources)
    given_out = []
    for i, demand in enumerate(wanted):
        if pool.can_allocate("a", demand):
            give(pool, str(i), "a", demand)
            given_out.append(str(i))
    for key in given_out:
        pool.deallocate(key)
    assert {d: pool.free(d).tolist() for d in pool.dimensions} == {d: fresh.free(d).tolist() for d in fresh.dimensions}
    assert pool.gpu_free.tolist() == fresh.gpu_free.tolist()


class LedgerHistory(RuleBasedStateMachine):
    """Any history of nodes coming and going and demands placed and freed, against a bookkeeping in plain sums."""

    allocations = Keys("allocations")

    def __init__(self) -> None:
        super().__init__()
        self.pool = ResourcePool()
        self.nodes: dict[str, NodeResources] = {}
        self.held: dict[str, Bundle] = {}
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
            assert set(lost) == {key for key, bundle in self.held.items() if bundle.node_id == node}
            self.held = {key: bundle for key, bundle in self.held.items() if bundle.node_id != node}
            del self.nodes[node]

    @rule(target=allocations, demand=demands, data=st.data())
    def allocate(self, demand: Demand, data: st.DataObject) -> str:
        self.count += 1
        key = f"a{self.count}"
        if self.nodes:
            node = data.draw(st.sampled_from(sorted(self.nodes)))
            if self.pool.can_allocate(node, demand):
                indices = give(self.pool, key, node, demand)
                assert len(set(indices)) == demand.gpu_count
                self.held[key] = Bundle(demand=demand, node_id=node, gpu_indices=indices)
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
            mine = [bundle for bundle in self.held.values() if bundle.node_id == node]
            cpus = sum(bundle.demand.cpu_units for bundle in mine)
            assert cpus <= resources.cpu_units
            assert int(self.pool.free(CPUS)[row]) == resources.cpu_units - cpus
            assert sum(bundle.demand.memory for bundle in mine) <= resources.memory_bytes
            for index in range(resources.gpus):
                used = sum(bundle.demand.gpu_units for bundle in mine if index in bundle.gpu_indices)
                assert used <= UNITS
                assert int(self.pool.gpu_free[row, index]) == UNITS - used


TestLedgerHistory = LedgerHistory.TestCase
