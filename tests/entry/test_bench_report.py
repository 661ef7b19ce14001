"""The one form of benchmarks: rows, ratios, a table and JSON."""

import json
from pathlib import Path

import pytest

from noodle_ray.entry.bench.report import Row, publish
from noodle_ray.entry.bench.timing import milliseconds, percentile


def test_a_ratio_above_one_means_that_the_goal_is_met() -> None:
    assert Row(metric="m", value=50, unit="ms", goal=100).ratio == 2.0
    assert Row(metric="m", value=45, unit="%", goal=90, better="higher").ratio == 0.5
    assert Row(metric="m", value=None, unit="ms", goal=100).ratio is None
    assert Row(metric="m", value=0, unit="%", goal=5).ratio is None


def test_table_and_json_show_the_same_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        Row(metric="call_ms", value=1.25, unit="ms", goal=100, context={"rival": "bare Ray", "n": 3}),
        Row(metric="uptime", value=None, unit="%", goal=99.9, better="higher"),
    ]
    publish("demo", rows, tmp_path / "out.json")
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["bench"] == "demo"
    assert set(written) == {"bench", "machine", "rows"}
    assert written["rows"][0] == {
        "metric": "call_ms",
        "value": 1.25,
        "unit": "ms",
        "goal": 100,
        "better": "lower",
        "context": {"rival": "bare Ray", "n": 3},
    }
    shown = capsys.readouterr().out
    assert "1.25 ms" in shown
    assert "not yet measured" in shown


def test_percentiles_are_measured_values() -> None:
    values = [5.0, 1.0, 3.0, 2.0, 4.0]
    assert percentile(values, 50) == 3.0
    assert percentile(values, 99) == 5.0
    assert percentile([7.0], 1) == 7.0


def test_timing_calls_as_often_as_it_says() -> None:
    calls: list[int] = []
    assert len(milliseconds(lambda: calls.append(1), times=5, warm_up=2)) == 5
    assert len(calls) == 7
