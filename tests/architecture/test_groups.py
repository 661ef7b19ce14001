"""Every file with tests on Ray is in one of the groups that `make test` runs, each in a process of its own."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_no_file_with_a_cluster_is_forgotten() -> None:
    makefile = (ROOT / "Makefile").read_text()
    groups = re.search(r"^RAY_TESTS := (.+)$", makefile, re.MULTILINE)
    assert groups is not None
    listed = [ROOT / group for group in groups[1].split()]
    assert all(group.exists() for group in listed)
    marked = [path for path in (ROOT / "tests").rglob("test_*.py") if "pytest.mark." + "ray" in path.read_text()]
    assert [path for path in marked if not any(path.is_relative_to(group) for group in listed)] == []
