"""The README is true where a test can tell: every setting with its default, every command, every file it names."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from noodle_ray.entry.cli.main import app
from noodle_ray.settings import Settings, read_settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def documented() -> dict[str, str]:
    """The settings table: variable → default as written."""
    return dict(re.findall(r"^\| `(NOODLE_\w+)` \| (.+?) \|", README, re.MULTILINE))


def test_every_setting_is_in_the_table() -> None:
    variables = {str(field.validation_alias) for field in Settings.model_fields.values()}
    assert set(documented()) == variables


@pytest.mark.parametrize(("name", "field"), [(str(f.validation_alias), n) for n, f in Settings.model_fields.items()])
def test_defaults_are_those_of_the_table(name: str, field: str) -> None:
    default = getattr(read_settings({}), field)
    shown = documented()[name].strip("`")
    if name == "NOODLE_DATABASE_URL":
        assert (shown, default) == ("SQLite in the state directory", "")
    elif name == "NOODLE_ARTEFACTS_URL":
        assert (shown, default) == ("a folder in the state directory", "")
    elif isinstance(default, Path):
        assert Path(shown).expanduser() == default
    else:
        assert shown.split()[0].strip("`") == str(default)


def test_every_command_it_names_exists() -> None:
    command = get_command(app)
    names = re.findall(r"`noodle ([a-z]+)", README)
    assert {"up", "status", "module", "fuse", "bench"} <= set(names)
    assert set(names) <= set(command.commands)  # type: ignore[attr-defined]


def test_every_file_it_links_to_exists() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert "docs/architecture.svg" in links
    assert [link for link in links if not (ROOT / link).exists() and not (ROOT / f"{link}.md").exists()] == []
