"""Real data: what is taken from where, and what is said when it cannot be had."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from noodle_ray.entry.cli import data, models
from noodle_ray.entry.training import datasets
from noodle_ray.errors import CorruptData, NotFound, Unavailable
from noodle_ray.fusion_models.packs import Pack


def test_recorded_speech_comes_with_transcripts(speech: datasets.SpeechSet) -> None:
    assert len(speech.prompts) > 500
    prompt = speech["one-moment-please"]
    assert (prompt.transcript, prompt.path.suffix) == ("One moment, please.", ".wav")
    assert not any("[" in prompt.transcript for prompt in speech.prompts)
    with pytest.raises(NotFound):
        speech["no-such-prompt"]


def test_photographs_are_those_in_the_wheel() -> None:
    found = datasets.photographs()
    assert len(found) == len(datasets.CAPTIONS)
    assert all(photograph.path.is_file() for photograph in found)


def test_functions_come_without_their_docstrings() -> None:
    functions = datasets.python_functions()
    assert len(functions) > 500
    weekday = next(f for f in functions if (f.module, f.name) == ("calendar", "weekday"))
    assert weekday.code.startswith("def weekday(")
    assert weekday.summary not in weekday.code


def test_speech_that_was_not_fetched_says_how(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="noodle data fetch speech"):
        datasets.load_speech(tmp_path)


def test_without_apt_a_recording_of_ones_own_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="no apt-get here"):
        datasets.fetch_speech(tmp_path / "cache")


def script(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_apt_failing_is_told_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, "apt-get", "echo 'E: no such package' >&2; exit 100")
    script(tmp_path, "dpkg", "exit 0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(Unavailable, match="E: no such package"):
        datasets.fetch_speech(tmp_path / "cache")


def test_another_package_than_expected_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, "apt-get", 'for last; do :; done; echo other > "${last%%=*}_1_all.deb"')
    script(tmp_path, "dpkg", "exit 0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(CorruptData, match="sha256"):
        datasets.fetch_speech(tmp_path / "cache")
    assert not datasets.speech_directory(tmp_path / "cache").exists()


def test_damaged_transcripts_are_corrupt_data(tmp_path: Path) -> None:
    transcripts = datasets.speech_directory(tmp_path) / datasets._TRANSCRIPTS
    transcripts.parent.mkdir(parents=True)
    transcripts.write_bytes(gzip.compress(b"time: Time.")[:-6])
    with pytest.raises(CorruptData, match="noodle data fetch speech"):
        datasets.load_speech(tmp_path)


def run(app: object, *arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)  # type: ignore[arg-type]
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_data_command_tells_where_the_speech_is(speech: datasets.SpeechSet, cache_dir: Path) -> None:
    found = json.loads(run(data.app, "fetch", "speech", "--json"))
    assert found == {"folder": str(datasets.speech_directory(cache_dir)), "prompts": len(speech.prompts)}
    assert "prompts" in run(data.app, "fetch", "speech")


def test_the_models_commands_show_the_base_pack(base: Pack) -> None:
    listed = json.loads(run(models.app, "list", "--json"))
    assert {"text", "audio", "vision", "code"} == set(next(row for row in listed if row["pack"] == "base")["encoders"])
    assert json.loads(run(models.app, "fetch", "--json"))[0]["state"] == "intact"
    assert json.loads(run(models.app, "check", "--json")) == {"pack": "base", "intact": True, "problems": []}
    assert json.loads(run(models.app, "files", "--json"))["name"] == "base"
    for command in ("list", "check", "files"):
        assert "base" in run(models.app, command)


def test_a_damaged_pack_is_listed_as_such(tmp_path: Path, base: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "packs" / "base"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text((base.directory / "manifest.json").read_text())
    monkeypatch.setenv("NOODLE_CACHE_DIR", str(tmp_path))
    assert "missing" in json.loads(run(models.app, "list", "--json"))[0]["state"]
    result = CliRunner().invoke(models.app, ["check", "--json"])
    assert result.exit_code == 1
    assert not json.loads(result.stdout)["intact"]
    assert isinstance(CliRunner().invoke(models.app, ["check"]).exception, CorruptData)
