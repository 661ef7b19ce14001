"""Fleets and demands for tests of placement, by hypothesis or by hand."""

from hypothesis import strategies as st

from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.resources import UNITS, Demand, NodeResources

GIB = 2**30
TYPES = ("A100", "L4", "T4")

shares = st.sampled_from([0.1, 0.25, 0.3, 0.5, 0.75, 0.9])
gpu_demands = st.one_of(
    st.builds(lambda s, c: Demand(gpu_share=s, cpus=c), shares, st.sampled_from([0, 0.5])),
    st.builds(lambda n: Demand(gpus=n), st.integers(1, 3)),
    st.builds(lambda n, t: Demand(gpus=n, cpus=1, accelerator_type=t), st.integers(1, 2), st.sampled_from(TYPES)),
)
demands = st.one_of(
    st.builds(lambda c, m: Demand(cpus=c, memory=m), st.sampled_from([0.1, 0.5, 1, 3]), st.integers(0, 4 * GIB)),
    gpu_demands,
    st.builds(lambda n: Demand(custom={"disk": n}), st.sampled_from([0.5, 1])),
)
nodes = st.builds(
    lambda c, m, g, d, t: NodeResources.of(
        cpus=c,
        memory=m * GIB,
        gpus=g,
        accelerator_type=t if g else None,
        custom_units={"disk": d * UNITS} if d else {},
    ),
    st.integers(0, 8),
    st.integers(0, 16),
    st.integers(0, 4),
    st.integers(0, 2),
    st.sampled_from(TYPES),
)


def pool_of(**fleet: NodeResources) -> ResourcePool:
    pool = ResourcePool()
    for name, resources in fleet.items():
        pool.add_node(name, resources)
    return pool
