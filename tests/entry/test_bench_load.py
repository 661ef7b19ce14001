"""`noodle bench load`: calls in turn, loads that count and loads that do not, and the rows that they come to."""

import pytest

from noodle_ray.entry.bench.call_overhead import WARM_UP, interleaved
from noodle_ray.entry.bench.load import Loads, cold_rows, warm_rows
from noodle_ray.entry.bench.module_cluster import ratio_row


async def test_calls_are_made_in_turn_and_who_is_first_changes() -> None:
    order: list[str] = []

    async def note(name: str) -> None:
        order.append(name)

    taken = await interleaved([lambda: note("a"), lambda: note("b")], 4)
    assert [len(times) for times in taken] == [4, 4]
    assert order[2 * WARM_UP :] == ["a", "b", "b", "a", "a", "b", "b", "a"]


def test_loads_that_were_not_warm_are_counted_apart() -> None:
    loads = Loads()
    for number, warm in enumerate([True, True, False, True]):
        loads.add({"warm": warm, "milliseconds": {"host": number, "total": 9.0}}, 10.0 + number, warm=True)
    assert loads.taken == [10, 11, 13]
    rows = {(row.metric, row.context.get("stage")): row for row in warm_rows({"no": loads})}
    assert (rows["load_warm_ms_p50", None].value, rows["load_warm_ms_p50", None].goal) == (11, 25)
    assert (rows["load_warm_ms_p99", None].value, rows["load_warm_ms_p99", None].goal) == (13, 100)
    assert rows["load_warm_stage_ms_p50", "host"].value == 1
    assert rows["load_not_warm", None].value == 1


def test_what_was_never_measured_has_no_value() -> None:
    assert all(row.value is None for row in cold_rows(Loads()))


def test_a_ratio_says_how_many_times_better_we_are() -> None:
    assert ratio_row("m", 2.0, 10.0, {}).value == 5
    assert ratio_row("m", None, 10.0, {}).value is None
    assert ratio_row("m", 2.0, None, {}).value is None
    assert ratio_row("m", 2.5, 1.0, {}).value == pytest.approx(0.4)
