"""The wheel: built, installed into an empty environment, and every module of it imported there."""

import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def tracked_modules() -> set[str]:
    """Every module in the checkout, under the name it is imported by."""
    found = set()
    for top in ("noodle_ray", "actors", "fusion_models"):
        for path in (ROOT / top).rglob("*.py"):
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            if path.is_relative_to(ROOT / "noodle_ray" / "actors") or path.is_relative_to(
                ROOT / "noodle_ray" / "fusion_models"
            ):
                continue  # the symbolic links: the same files again
            if top != "noodle_ray":
                parts.insert(0, "noodle_ray")
            found.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    # From a copy: setuptools puts what an earlier build left beside the sources into the wheel too.
    left_out = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
    source = shutil.copytree(ROOT, out / "source", symlinks=True, ignore=left_out)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    return next(out.glob("*.whl"))


def test_every_module_is_in_the_wheel(wheel: Path) -> None:
    names = {
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in zipfile.ZipFile(wheel).namelist()
        if name.endswith(".py")
    }
    assert names == tracked_modules()


def test_data_files_are_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "noodle_ray/py.typed" in names
    for path in [*(ROOT / "noodle_ray").rglob("*.json"), *(ROOT / "fusion_models").rglob("*.json")]:
        relative = path.relative_to(ROOT)
        name = str(relative) if relative.parts[0] == "noodle_ray" else f"noodle_ray/{relative}"
        assert name in names


def test_the_installed_wheel_imports_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """The environment holds the wheel alone; what it depends on is lent by path, and the checkout is not."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    program = f"""
import importlib, sys
sys.path.append({next(path for path in sys.path if path.endswith("site-packages"))!r})
import noodle_ray
assert {str(tmp_path)!r} in noodle_ray.__file__, noodle_ray.__file__
for name in {sorted(tracked_modules())!r}:
    importlib.import_module(name)
"""
    run = subprocess.run([python, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_every_package_is_listed() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = {name.rpartition(".")[0] for name in tracked_modules()} | {"noodle_ray"}
    assert {folder for folder in folders if folder} == listed
