"""An agent's measurement refuses what cannot be."""

import pytest

from noodle_ray.errors import InvalidInput
from noodle_ray.nodes.metrics import ResourceMetrics

GOOD = {
    "cpu_count": 2,
    "cpu_used_ratio": 0.5,
    "memory_total_bytes": 100,
    "memory_used_bytes": 25,
    "disk_total_bytes": 200,
    "disk_used_bytes": 20,
    "network_sent_bytes": 0,
    "network_received_bytes": 0,
    "taken_at": 1.0,
}


def test_ratios() -> None:
    metrics = ResourceMetrics.parse(GOOD)
    assert metrics.memory_used_ratio == 0.25
    assert metrics.disk_used_ratio == 0.1


def test_an_empty_disk_has_a_ratio_too() -> None:
    metrics = ResourceMetrics.parse(
        GOOD | {"disk_total_bytes": 0, "disk_used_bytes": 0, "memory_total_bytes": 0, "memory_used_bytes": 0}
    )
    assert metrics.disk_used_ratio == metrics.memory_used_ratio == 0.0


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"cpu_count": 0}, "cpu_count"),
        ({"cpu_used_ratio": 1.5}, "cpu_used_ratio"),
        ({"memory_used_bytes": -1}, "memory_used_bytes"),
        ({"memory_used_bytes": 101}, "memory_used_bytes is 101"),
        ({"wattage": 3}, "wattage"),
    ],
)
def test_refuses(wrong: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput, match=field):
        ResourceMetrics.parse(GOOD | wrong)
