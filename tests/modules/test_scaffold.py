"""A new module's files: they make a module that can be published and called as it is."""

import importlib
from pathlib import Path

import pytest

from noodle_ray.errors import InvalidInput
from noodle_ray.modules.artefact import Artefact, pack_module, read_artefact
from noodle_ray.modules.manifest import StateSpec
from noodle_ray.modules.scaffold import scaffold


def written(folder: Path, name: str, state: bool = False) -> Artefact:
    for path, text in scaffold(name, state).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return read_artefact(pack_module(folder))


def test_it_is_a_module(tmp_path: Path) -> None:
    artefact = written(tmp_path, "Word_Counter")
    assert (artefact.manifest.name, artefact.manifest.version) == ("word-counter", "0.1.0")
    assert artefact.manifest.entry_point == "word_counter.service:WordCounter"
    assert artefact.functions is not None
    assert [function.text() for function in artefact.functions] == [
        "greet(name: str, polite: bool = …) → str",
        "is_well() → bool",
    ]


async def test_one_with_state_goes_on_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artefact = written(tmp_path, "visitors_book", state=True)
    assert artefact.manifest.state == StateSpec()
    monkeypatch.syspath_prepend(tmp_path)
    kind = importlib.import_module("visitors_book.service").VisitorsBook
    first, second = kind(), kind()
    assert await first.greet("you") == "Good day, you, for the 1. time."
    second.import_state(first.export_state(), 1)
    assert await second.greet("you") == "Good day, you, for the 2. time." and second.is_well()


@pytest.mark.parametrize("name", ["1st", "no name", ""])
def test_a_name_that_makes_no_package_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="name"):
        scaffold(name)
