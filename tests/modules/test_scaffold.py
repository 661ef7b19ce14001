"""A new module's files: they make a module that can be published and called as it is."""

from pathlib import Path

import pytest

from noodle_ray.errors import InvalidInput
from noodle_ray.modules.artefact import pack_module, read_artefact
from noodle_ray.modules.scaffold import scaffold


def test_it_is_a_module(tmp_path: Path) -> None:
    for path, text in scaffold("Word_Counter").items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    artefact = read_artefact(pack_module(tmp_path))
    assert (artefact.manifest.name, artefact.manifest.version) == ("word-counter", "0.1.0")
    assert artefact.manifest.entry_point == "word_counter.service:WordCounter"
    assert artefact.functions is not None
    assert [function.text() for function in artefact.functions] == [
        "greet(name: str, polite: bool = …) → str",
        "is_well() → bool",
    ]


@pytest.mark.parametrize("name", ["1st", "no name", ""])
def test_a_name_that_makes_no_package_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="name"):
        scaffold(name)
