"""Environments with a module's packages: what is in them, made once, and what pip refuses; without any index."""

from __future__ import annotations

import asyncio
import subprocess
import zipfile
from pathlib import Path

import pytest

from noodle_ray.actors.host_environment import install, not_counted
from noodle_ray.errors import ModuleFailed, Unavailable


@pytest.fixture(autouse=True)
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one small package in two versions, and no index beside it."""
    for version in ("1.0", "2.0"):
        named = f"noodle_tiny-{version}"
        with zipfile.ZipFile(tmp_path / f"{named}-py3-none-any.whl", "w") as wheel:
            wheel.writestr("noodle_tiny.py", f"VERSION = {version!r}")
            wheel.writestr(
                f"{named}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: noodle-tiny\nVersion: {version}\n"
            )
            wheel.writestr(f"{named}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{named}.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return tmp_path


def test_has_the_packages_and_all_that_was_there(tmp_path: Path) -> None:
    python = install(str(tmp_path / "cache"), "m", ["noodle-tiny<2"])
    code = "import noodle_tiny, ray, pydantic; print(noodle_tiny.VERSION, ray.__version__)"
    told = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert told[0] == "1.0"
    assert install(str(tmp_path / "cache"), "m", ["noodle-tiny"]) != python


def test_is_made_once_and_anew_where_it_is_not_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = str(tmp_path / "cache")
    python = Path(install(cache, "m", ["noodle-tiny"]))
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert install(cache, "other", ["noodle-tiny"]) == str(python)
    (python.parent.parent / "whole").unlink()
    with pytest.raises(ModuleFailed):
        install(cache, "m", ["noodle-tiny"])


@pytest.mark.parametrize(
    ("packages", "told"),
    [
        (["noodle-tiny==3"], r"No matching distribution found for noodle-tiny==3"),
        (["noodle-tiny==1.0", "noodle-tiny==2.0"], r"Cannot install noodle-tiny==1.0 and noodle-tiny==2.0"),
        (["ray==1.0"], r"ray==1\.0"),
    ],
)
def test_what_cannot_be_installed_is_told_in_pips_words(tmp_path: Path, packages: list[str], told: str) -> None:
    with pytest.raises(ModuleFailed, match=f"m failed: its packages cannot be installed: .*{told}") as caught:
        install(str(tmp_path / "cache"), "m", packages)
    assert "ERROR" in caught.value.trace


def test_no_index_is_worth_another_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")  # nobody listens there
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(Unavailable, match="the package index cannot be reached"):
        install(str(tmp_path / "cache"), "m", ["noodle-ray-elsewhere"])


async def test_what_is_not_counted_takes_no_time_of_the_limit() -> None:
    async with asyncio.timeout(0.2) as limit:
        async with not_counted(limit):
            await asyncio.sleep(0.4)
        await asyncio.sleep(0.05)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1) as limit:
            async with not_counted(limit):
                await asyncio.sleep(0.2)
            await asyncio.sleep(1)
    async with not_counted(None):
        pass
