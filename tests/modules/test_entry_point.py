"""What a manifest names is in the code: read from its source, and refused by the field that names it."""

from __future__ import annotations

import pytest

from noodle_ray.errors import InvalidInput
from noodle_ray.modules.archive import write_entries
from noodle_ray.modules.artefact import read_artefact
from noodle_ray.modules.signatures import read_names

CLASS = "class A:\n    def f(self): ...\n"
EXPORTS = "    def export_state(self): ...\n"
IMPORTS = "    def import_state(self, state, from_version): ...\n"


def publish(code: str, more: str, entry_point: str = "file:A") -> None:
    """Reads a packed module, as publishing does."""
    manifest = f'[tool.noodle.module]\nname = "a"\nversion = "1"\nentry_point = "{entry_point}"\n{more}\n'
    read_artefact(write_entries({"pyproject.toml": manifest.encode(), "file.py": code.encode()}))


@pytest.mark.parametrize(
    ("code", "more"),
    [
        (CLASS + EXPORTS + IMPORTS, "state = {}"),
        (CLASS + EXPORTS + "    def import_state(self, state, version, /, *, more=1): ...\n", "state = {}"),
        (CLASS + "    async def export_state(self): ...\n    def import_state(self, *given): ...\n", "state = {}"),
        (CLASS + "    export_state = import_state = made()\n", "state = {}"),
        (CLASS + "    @wrapped\n    def import_state(self): ...\n" + EXPORTS, "state = {}"),
        ("class Base:\n" + EXPORTS + IMPORTS + "class A(Base): ...", "state = {}"),
        ("class A(elsewhere.Base): ...", 'state = {}\nidempotent = ["f"]\nhealth_check = "well"'),
        (CLASS, 'idempotent = ["f"]\nhealth_check = "f"'),
        (CLASS + "    def _well(self): ...", 'health_check = "_well"'),
        (CLASS + "    def __init__(self): self.well = lambda: True", 'health_check = "well"'),
        (CLASS + "    def __getattr__(self, name): ...", 'health_check = "well"'),
        ("def f(:", 'idempotent = ["f"]\nhealth_check = "f"\nstate = {}'),
    ],
)
def test_what_is_there_or_cannot_be_told(code: str, more: str) -> None:
    publish(code, more)


@pytest.mark.parametrize(
    ("code", "more"),
    [
        ("from elsewhere import well", 'health_check = "well"'),
        ("from elsewhere import *", 'health_check = "well"'),
        ("def f(): ...\nif True:\n    def g(): ...", 'idempotent = ["f", "g"]'),
        ("from elsewhere import f\n__all__ = ['f']", 'idempotent = ["f"]'),
    ],
)
def test_the_functions_of_a_file(code: str, more: str) -> None:
    publish(code, more, "file")


@pytest.mark.parametrize(
    ("code", "more", "field", "problem"),
    [
        (CLASS + IMPORTS, "state = {}", "state", "needs a method export_state"),
        (CLASS + EXPORTS, "state = {}", "state", "needs a method import_state"),
        (CLASS + IMPORTS + "    def export_state(self, to): ...", "state = {}", "state", "with no arguments"),
        (CLASS + EXPORTS + "    def import_state(self, state): ...", "state = {}", "state", "with 2 arguments"),
        (CLASS + EXPORTS + "    def import_state(self, a, b, c): ...", "state = {}", "state", "with 2 arguments"),
        (CLASS + EXPORTS + "    def import_state(self, a, b, *, c): ...", "state = {}", "state", "with 2 arguments"),
        (CLASS, 'idempotent = ["f", "g"]', "idempotent", "no public function"),
        (CLASS + "    def _g(self): ...", 'idempotent = ["_g"]', "idempotent", "no public function"),
        (CLASS, 'health_check = "well"', "health_check", "does not have"),
    ],
)
def test_what_is_not_there_names_its_field(code: str, more: str, field: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem) as caught:
        publish(code, more)
    assert [fault.field for fault in caught.value.faults] == [field]


def test_all_faults_are_told_together() -> None:
    with pytest.raises(InvalidInput) as caught:
        publish(CLASS, 'state = {}\nidempotent = ["g"]\nhealth_check = "well"')
    assert [fault.field for fault in caught.value.faults] == ["state", "state", "idempotent", "health_check"]


@pytest.mark.parametrize("code", ["@made\nclass A: ...", "class A(metaclass=M): ...", "B = 1", "class A(B): ..."])
def test_names_of_a_class_that_only_running_would_tell(code: str) -> None:
    assert read_names({"file.py": code.encode()}, "file:A") is None


class TestVendor:
    def module(self, vendor: str, files: dict[str, bytes]) -> bytes:
        manifest = f'[tool.noodle.module]\nname = "a"\nversion = "1"\nentry_point = "file"\nvendor = {vendor}\n'
        return write_entries({"pyproject.toml": manifest.encode(), **files})

    def test_its_folder_is_kept(self) -> None:
        files = {"file.py": b"", "vendor/other/__init__.py": b""}
        assert b"vendor/other/__init__.py" in read_artefact(self.module("true", files)).archive

    def test_without_a_folder_it_is_refused(self) -> None:
        with pytest.raises(InvalidInput, match="vendor: is true, but the module has no folder 'vendor'"):
            read_artefact(self.module("true", {"file.py": b""}))

    @pytest.mark.parametrize("name", ["vendor/__init__.py", "vendor.py"])
    def test_it_is_no_package_itself(self, name: str) -> None:
        with pytest.raises(InvalidInput, match="must be a folder of packages, not a package itself"):
            read_artefact(self.module("false", {"file.py": b"", name: b""}))
