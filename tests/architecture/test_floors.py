"""The house's rules about imports: the core imports no Ray or torch, arrows point down, only entry knows everybody."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("ray", "torch", "transformers")

CORE = sorted(
    path
    for path in (ROOT / "noodle_ray").rglob("*.py")
    if not {"entry", "actors", "fusion_models"} & set(path.relative_to(ROOT / "noodle_ray").parts)
)
ACTORS = sorted((ROOT / "actors").rglob("*.py"))
FUSION_MODELS = sorted((ROOT / "fusion_models").rglob("*.py"))


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] != "noodle_ray":
        parts.insert(0, "noodle_ray")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> set[str]:
    """What the file imports when it runs: imports for type checkers only do not count."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        waiting.extend(ast.iter_child_nodes(node))
    return found


def offenders(paths: list[Path], forbidden: tuple[str, ...]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in paths
        for name in sorted(imports_of(path))
        if any(name == prefix or name.startswith(prefix + ".") for prefix in forbidden)
    ]


def test_actors_make_what_ray_runs_once() -> None:
    """Ray keeps every class and function that it is given, here and in GCS, for as long as the process lives."""
    anew = [
        f"{path.relative_to(ROOT)}: {outer.name}"
        for path in ACTORS
        for outer in ast.walk(ast.parse(path.read_text()))
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        and any(isinstance(node, ast.Call) and ast.unparse(node.func) == "ray.remote" for node in ast.walk(outer))
    ]
    assert anew == []


def test_the_core_imports_nobody_above_it() -> None:
    above = ("noodle_ray.actors", "noodle_ray.fusion_models", "noodle_ray.entry")
    assert offenders(CORE, (*HEAVY, *above)) == []


def test_the_shells_do_not_know_each_other_or_the_top_floor() -> None:
    assert offenders(ACTORS, ("noodle_ray.fusion_models", "noodle_ray.entry")) == []
    assert offenders(FUSION_MODELS, ("noodle_ray.actors", "noodle_ray.entry")) == []


def test_the_test_itself_sees_an_import(tmp_path: Path) -> None:
    file = tmp_path / "offender.py"
    file.write_text("def later():\n    from ray.util import state\n")
    assert imports_of(file) == {"ray.util.state"}


def test_the_whole_core_imports_with_ray_and_torch_blocked() -> None:
    names = [module_name(path) for path in CORE]
    program = f"""
import importlib, sys
for blocked in {HEAVY!r}:
    sys.modules[blocked] = None
for name in {names!r}:
    importlib.import_module(name)
print(len({names!r}))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) == len(names) > 10


@pytest.mark.parametrize("package", ["actors", "fusion_models"])
def test_shells_refuse_to_be_imported_under_a_generic_name(package: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", f"import {package}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode != 0
    assert f"import this package as noodle_ray.{package}" in run.stderr
