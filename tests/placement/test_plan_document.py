"""A plan's document is read with clear errors, and says the same as requests made by hand."""

import pytest

from noodle_ray.errors import InvalidInput
from noodle_ray.placement.plan_document import PlanDocument
from noodle_ray.placement.request import Request
from noodle_ray.resources import Demand

WHOLE = """
fleet:
  - {name: big, count: 2, cpus: 8, memory: 16GiB, gpus: 4, accelerator_type: A100, labels: {zone: x}, custom: {disk: 2}}
  - {name: small, cpus: 2}
policy: best-fit
requests:
  - {name: train, count: 2, gpus: 2, cpus: 1, anti_affinity: train, priority: 3}
  - name: gang
    strategy: strict-spread
    bundles: [{gpu_share: 0.5}, {cpus: 1, memory: 1GiB}]
"""


def test_all_that_a_document_may_say() -> None:
    document = PlanDocument.read(WHOLE)
    train_1, train_2, gang = document.wanted()
    assert [train_1.name, train_2.name, gang.name] == ["train-1", "train-2", "gang"]
    assert train_1.request == Request(bundles=(Demand(gpus=2, cpus=1),), anti_affinity="train")
    assert (train_1.priority, gang.priority, document.policy) == (3, 0, "best-fit")
    assert gang.request == Request(
        bundles=(Demand(gpu_share=0.5), Demand(cpus=1, memory="1GiB")), strategy="strict-spread"
    )
    pool = document.pool()
    assert pool is not None
    assert pool.node_ids == ("big-1", "big-2", "small")
    assert pool.columns.resources(0).to_json() == {
        "cpus": 8,
        "memory_bytes": 16 * 2**30,
        "gpus": 4,
        "accelerator_type": "A100",
        "labels": {"zone": "x"},
        "custom": {"disk": 2},
    }


def test_without_a_fleet_the_live_one_is_meant() -> None:
    assert PlanDocument.read("requests: [{name: a, cpus: 1}]").pool() is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "document: must have requests, and may have fleet and policy"),
        ("a: [", "document: is no YAML: line 1, column 5"),
        ("requests: []", "requests: must have an entry"),
        ("fleet: []\nrequests: [{name: a, cpus: 1}]", "fleet: must have an entry"),
        ("fleet: [{name: a, gpu: 1}]\nrequests: [{name: a, cpus: 1}]", "fleet.0.gpu: "),
        ("requests: [{name: a}]", "requests.0: asks for nothing"),
        ("requests: [{name: a, gpu_share: 2}]", "requests.0.gpu_share: Input should be less than 1 (given: 2)"),
        ("requests: [{cpus: 1}]", "requests.0.name: Field required"),
        ("requests: [{name: a, bundles: [{cpus: 1}, {gpus: x}]}]", "requests.0.bundles.1.gpus: "),
        ("requests: [{name: a, bundles: [{cpus: 1}], gpus: 1}]", "requests.0.gpus: Extra inputs are not permitted"),
        ("requests: [{name: a, cpus: 1, strategy: pack}]", "requests.0.strategy: Extra inputs are not permitted"),
        ("requests: [{name: a, cpus: 1, anti_affinity: ''}]", "requests.0.anti_affinity: "),
        ("requests: [3]", "requests.0: must have a name and the fields of a demand, or a name and bundles (given: 3)"),
        ("requests: [{name: a, cpus: 1}, {name: a, gpus: 1}]", "requests: has the name a twice"),
        ("requests: [{name: a, cpus: 1, count: 2}, {name: a-1, gpus: 1}]", "requests: has the name a-1 twice"),
        ("requests: [{name: a, cpus: 1, count: 0}]", "requests.0.count: "),
    ],
)
def test_what_is_wrong_is_named(text: str, says: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        PlanDocument.read(text)
    assert says in str(raised.value)


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(InvalidInput) as raised:
        PlanDocument.read("fleet: [{name: a, cpus: -1}]\nrequests: [{name: b, gpus: x}, {name: c, memory: much}]")
    assert [fault.field for fault in raised.value.faults] == ["fleet.0.cpus", "requests.0.gpus", "requests.1.memory"]
