"""Published results are read as mean and spread by trace and policy; without the file there are none."""

from pathlib import Path

import pytest

from noodle_ray.errors import InvalidInput
from noodle_ray.replay.published import POLICY_NAMES, Figure, read_published

LEVELS = range(131)


def write(directory: Path, *runs: str) -> Path:
    path = directory / "below" / "analysis_allo_discrete.csv"
    path.parent.mkdir(exist_ok=True)
    header = "workload,sc_policy,tune,seed,total_gpus," + ",".join(map(str, LEVELS))
    path.write_text("\n".join([header, *runs]))
    return path


def run(policy: str, factor: float, workload: str = "openb_pod_list_mine") -> str:
    return f"{workload},{policy},1.3,42,6212," + ",".join(str(level * factor) for level in LEVELS)


def test_mean_and_spread_over_seeds(tmp_path: Path) -> None:
    write(tmp_path, run("06-FGD", 0.5), run("05-BestFit", 0.25), run("06-FGD", 0.7), run("99-Unknown", 0.1))
    published = read_published(tmp_path)
    fgd = published.allocation("mine", "fgd", 100)
    assert fgd is not None
    assert (fgd.mean, fgd.deviation, fgd.seeds) == (pytest.approx(60), pytest.approx(200**0.5), 2)
    assert published.allocation("mine", "best-fit", 130) == Figure(32.5, 0.0, 1)
    assert set(published.runs) == {("mine", "fgd"), ("mine", "best-fit")}


def test_what_was_not_published_is_none(tmp_path: Path) -> None:
    write(tmp_path, run("06-FGD", 0.5))
    published = read_published(tmp_path)
    for trace, policy, at in (("other", "fgd", 1), ("mine", "random", 1), ("mine", "fgd", 131), ("mine", "fgd", -1)):
        assert published.allocation(trace, policy, at) is None


@pytest.mark.parametrize("directory", ["", "nowhere"])
def test_without_a_file_nothing_was_published(tmp_path: Path, directory: str) -> None:
    published = read_published(tmp_path / directory)
    assert not published.runs
    assert published.allocation("default", "fgd", 100) is None


@pytest.mark.parametrize("value", ["", "much", "nan", "101", "-1"])
def test_a_malformed_value_is_named(tmp_path: Path, value: str) -> None:
    path = write(tmp_path, run("06-FGD", 0.5), run("06-FGD", 0.5).replace(",65.0", f",{value}"))
    with pytest.raises(InvalidInput) as caught:
        read_published(tmp_path)
    assert [part for part in (str(path), "line 3, 130", "from 0 to 100", value) if part not in str(caught.value)] == []


def test_two_files_are_one_too_many(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "analysis_allo_discrete.csv").touch()
    with pytest.raises(InvalidInput, match="exactly one file of published results, has 2"):
        read_published(tmp_path)


def test_the_figures_that_the_paper_is_known_for(traces_dir: Path) -> None:
    published = read_published(traces_dir)
    assert len(published.runs) == 17 * len(POLICY_NAMES)
    expected = {
        ("default", "fgd"): 95.23,
        ("default", "best-fit"): 92.86,
        ("cpu250", "fgd"): 93.20,
        ("gpuspec33", "fgd"): 87.84,
        ("multigpu50", "best-fit"): 95.6,
        ("gpushare100", "fgd"): 86.64,
    }
    for (trace, policy), mean in expected.items():
        allocation = published.allocation(trace, policy, 100)
        assert allocation is not None
        assert allocation.seeds == 10
        assert allocation.mean == pytest.approx(mean, abs=0.05)
        assert 0 < allocation.deviation < 1
