"""Processes of hosts are weighed by niceness, and the machine is left as it was."""

from pathlib import Path

import pytest

from noodle_ray.entry.bench.host_scheduling import weighed_by_niceness


@pytest.mark.parametrize("before", ["0\n", "1\n"])
def test_sessions_are_not_weighed_meanwhile(tmp_path: Path, before: str) -> None:
    switch = tmp_path / "autogroup"
    switch.write_text(before)
    with pytest.raises(RuntimeError), weighed_by_niceness(switch):
        assert switch.read_text() == "0"
        raise RuntimeError
    assert switch.read_text() == before


def test_a_kernel_without_it_is_left_alone(tmp_path: Path) -> None:
    with weighed_by_niceness(tmp_path / "missing" / "autogroup"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_switch_that_cannot_be_written_is_left_alone() -> None:
    with weighed_by_niceness(Path("/proc/version")):
        pass
