"""Amounts: what people write is read exactly, and what is wrong is named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.errors import InvalidInput
from noodle_ray.resources import Demand, LabelSelector, NodeResources, format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("2GiB", 2 * 2**30),
        ("512 MB", 512 * 10**6),
        ("1.5KiB", 1536),
        ("7", 7),
        (" 3TiB ", 3 * 2**40),
        ("4G", 4 * 10**9),
        (5, 5),
    ],
)
def test_reads_bytes(text: str | int, amount: int) -> None:
    assert parse_bytes(text) == amount
    assert Demand(memory=text).memory == amount


@pytest.mark.parametrize("text", ["", "GiB", "2 GiB of it", "-1GiB", "1e3", "2PiB", "٣GiB"])
def test_refuses_what_is_no_size(text: str) -> None:
    with pytest.raises(InvalidInput, match="memory: must be a number of bytes"):
        Demand(memory=text)


@given(st.integers(0, 2**50))
def test_formatted_sizes_are_near(amount: int) -> None:
    shown = parse_bytes(format_bytes(amount))
    assert isinstance(shown, int)
    assert abs(shown - amount) <= max(amount * 0.06, 1)


def test_formats_huge_sizes_in_tebibytes() -> None:
    assert format_bytes(5000 * 2**40) == "5000TiB"


def test_a_demand_in_every_form() -> None:
    demand = Demand(
        cpus=1.5, memory="2GiB", gpu_share=0.25, custom={"tpu": 2}, accelerator_type="A100", labels={"zone": "!eu"}
    )
    assert demand.cpu_units == 15_000
    assert (demand.gpu_units, demand.gpu_count) == (2_500, 1)
    assert demand.custom_units == {"tpu": 20_000}
    assert demand.ray_resources() == {"CPU": 1.5, "GPU": 0.25, "memory": 2 * 2**30, "tpu": 2.0}
    assert str(demand) == "1.5 CPU, 2GiB memory, 0.25 of one GPU, 2 tpu, on A100, where zone=!eu"
    assert Demand.parse(demand.to_json()) == demand


def test_whole_gpus() -> None:
    demand = Demand(gpus=2)
    assert (demand.gpu_units, demand.gpu_count) == (10_000, 2)
    assert demand.ray_resources() == {"GPU": 2.0}
    assert str(demand) == "2 GPU"
    assert Demand(cpus=1).gpu_units == 0


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({}, "asks for nothing"),
        ({"cpus": -1}, r"cpus: Input should be greater than or equal to 0 \(given: -1\)"),
        ({"cpus": float("nan")}, "cpus"),
        ({"cpus": 0.00001}, "cpus: must be a multiple of 0.0001"),
        ({"cpus": "many"}, "cpus"),
        ({"gpus": 1, "gpu_share": 0.5}, "ask for whole gpus or for a gpu_share, not both"),
        ({"gpu_share": 1}, "gpu_share: Input should be less than 1"),
        ({"gpu_share": 0}, "gpu_share: Input should be greater than 0"),
        ({"gpus": 1.5}, "gpus"),
        ({"gpus": 9999}, "gpus"),
        ({"custom": {"CPU": 1}}, "CPU has a field of its own"),
        ({"custom": {"tpu": -1}}, "custom.tpu"),
        ({"custom": {"tpu": 0.00001}}, "multiple"),
        ({"cpus": 1, "labels": {"zone": "in(a,"}}, "no label selector"),
        ({"cpus": 1, "labels": {"zone": "in(a,,b)"}}, "empty value"),
        ({"cpus": 1, "labels": {"": "a"}}, "labels"),
        ({"cpus": 1, "colour": "red"}, "colour: Extra inputs are not permitted"),
    ],
)
def test_refuses_a_wrong_demand_and_names_the_field(fields: dict[str, object], fault: str) -> None:
    with pytest.raises(InvalidInput, match=fault):
        Demand(**fields)  # type: ignore[arg-type]


def test_reports_every_fault_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        Demand(cpus=-1, memory="much", colour="red")  # type: ignore[call-arg]
    assert [fault.field for fault in caught.value.faults] == ["cpus", "memory", "colour"]


def test_label_selectors_match_as_rays_do() -> None:
    assert LabelSelector.read("in(a, b)").matches("b")
    assert not LabelSelector.read("a").matches(None)
    assert LabelSelector.read("!a").matches(None)


def test_node_resources_in_a_persons_amounts() -> None:
    node = NodeResources.of(cpus=8, memory="32GiB", gpus=2, accelerator_type="L4", custom_units={"tpu": 5_000})
    assert node.to_json() == {
        "cpus": 8.0,
        "memory_bytes": 32 * 2**30,
        "gpus": 2,
        "accelerator_type": "L4",
        "labels": {},
        "custom": {"tpu": 0.5},
    }
