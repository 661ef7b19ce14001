"""The example with state: what 1.0.0 keeps, 2.0.0 goes on from."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from noodle_ray.modules.artefact import pack_module, read_artefact

EXAMPLES = Path(__file__).parents[2] / "examples" / "modules" / "counter"


def counter(version: str) -> Any:
    return runpy.run_path(str(EXAMPLES / version / "counter" / "counts.py"))["Counter"]()


@pytest.mark.parametrize(("old", "new"), [("1.0.0", "1.0.0"), ("1.0.0", "2.0.0"), ("2.0.0", "2.0.0")])
async def test_counts_go_on(old: str, new: str) -> None:
    before, after = counter(old), counter(new)
    assert (await before.add("a"), await before.add("a", 4), before.value("b")) == (1, 5, 0)
    schema = read_artefact(pack_module(EXAMPLES / old)).manifest.state
    assert schema is not None
    after.import_state(before.export_state(), schema.schema_version)
    assert (after.value("a"), await after.add("a"), after.value("b")) == (5, 6, 0)
    assert after.is_well() and before.value("a") == 5


async def test_additions_are_counted_from_the_second_version_on() -> None:
    second = counter("2.0.0")
    second.import_state({"a": 5}, 1)
    await second.add("a", 3)
    assert (second.value("a"), second.additions("a"), second.is_well()) == (8, 1, True)


def test_the_second_version_may_replace_the_first_and_not_the_other_way_round() -> None:
    first, second = (read_artefact(pack_module(EXAMPLES / version)).manifest.state for version in ("1.0.0", "2.0.0"))
    assert first is not None and second is not None
    assert second.can_read(first.schema_version) and not first.can_read(second.schema_version)
