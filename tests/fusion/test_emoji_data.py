"""Emoji as a data set: what is taken, how it is divided, how an icon becomes a picture, what is said without it."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from noodle_ray.entry.cli.data import app
from noodle_ray.entry.training import emoji as data
from noodle_ray.entry.training.emoji import Emoji, EmojiSet
from noodle_ray.errors import CorruptData, NotFound, Unavailable
from noodle_ray.fusion.decoding import decode_image

SQUARE = '<path fill="#ff0000" d="M0 0h8v16H0z"/>'
CAT, DOG = Emoji("\N{CAT FACE}", "cat face", ("cat",), 3), Emoji("\N{DOG FACE}", "dog face", ("dog", "puppy"), 3)


def small_set(**aliases: Any) -> EmojiSet:
    icons = {"icons": {"cat-face": {"body": SQUARE}}, "aliases": aliases, "width": 16, "height": 16}
    return EmojiSet((CAT, DOG), {"plain": icons})


@pytest.fixture(scope="module")
def found(cache_dir: Path) -> EmojiSet:
    try:
        return data.fetch_emoji(cache_dir)
    except (Unavailable, CorruptData) as error:
        pytest.skip(f"{error} (`noodle data fetch emoji`)")


def test_styles_of_all_parts_are_there_and_free() -> None:
    assert {style.part for style in data.STYLES} == {"training", "validation", "test"}
    assert {style.licence for style in data.STYLES} == {"Apache-2.0", "CC-BY-4.0", "CC-BY-SA-4.0", "MIT"}
    assert all("SA" not in style.licence for style in data.STYLES if style.part != "test")


def test_names_are_unique_and_every_part_has_many(found: EmojiSet) -> None:
    assert len({one.name for one in found.emoji}) == len(found.emoji) > 1300
    counts = Counter(one.part for one in found.emoji)
    assert counts["training"] > 900
    assert min(counts["validation"], counts["test"]) > 150


def test_every_style_draws_a_cat(found: EmojiSet) -> None:
    cat = next(one for one in found.emoji if one.name == "octopus")
    pictures = [decode_image(found.picture(cat, style.name)) for style in data.STYLES]
    assert all(picture.shape == (224, 224, 3) for picture in pictures)
    assert all(np.array_equal(picture[0, 0], [255, 255, 255]) for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


@given(st.characters(codec="utf-8"))
def test_the_part_depends_on_the_character_alone(character: str) -> None:
    one, other = Emoji(character, "a", (), 1), Emoji(character, "b", ("c",), 2)
    assert one.part == other.part in ("training", "validation", "test")


def test_an_icon_is_drawn_as_its_alias_says() -> None:
    pixels = {}
    for name, turn in {"plain": {}, "flipped": {"hFlip": True}, "turned": {"rotate": 1}}.items():
        found = small_set(**{"dog-face": {"parent": "cat-face", **turn}})
        image = Image.open(io.BytesIO(found.picture(DOG, "plain"))).convert("RGBA")
        pixels[name] = [image.getpixel(place)[3] > 0 for place in ((20, 112), (200, 112), (112, 20), (112, 200))]
    assert pixels["plain"][:2] == [True, False]
    assert pixels["flipped"][:2] == [False, True]
    assert pixels["turned"][2:] == [True, False]


def test_a_picture_that_is_not_drawn_in_a_style_is_not_found() -> None:
    assert not small_set().has(DOG, "plain")
    with pytest.raises(NotFound, match="dog face"):
        small_set().picture(DOG, "plain")


def test_names_are_found_without_marks_and_by_unicodes_own(found: EmojiSet) -> None:
    pinata = next(one for one in found.emoji if one.name == "piñata")
    assert found.has(pinata, "noto")
    aubergine = next(one for one in found.emoji if one.name == "eggplant")
    assert found.has(aubergine, "fxemoji")


def test_emoji_that_were_not_fetched_say_how(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="noodle data fetch emoji"):
        data.load_emoji(tmp_path)


def test_damaged_emoji_are_corrupt_data(tmp_path: Path) -> None:
    folder = data.emoji_directory(tmp_path)
    folder.mkdir(parents=True)
    (folder / "names.json").write_text("[")
    with pytest.raises(CorruptData, match="noodle data fetch emoji"):
        data.load_emoji(tmp_path)


def test_without_npm_pictures_of_ones_own_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="no npm here"):
        data.fetch_emoji(tmp_path / "cache")


def npm(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "npm").write_text(f"#!/bin/sh\n{body}\n")
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_npm_failing_is_told_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm(tmp_path, "echo 'npm error 404 not found' >&2; exit 1", monkeypatch)
    with pytest.raises(Unavailable, match="404 not found"):
        data.fetch_emoji(tmp_path / "cache")


def test_another_package_than_expected_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm(tmp_path, f"echo other > {data.NAMES_PACKAGE}-{data.NAMES_VERSION}.tgz", monkeypatch)
    with pytest.raises(CorruptData, match="sha256"):
        data.fetch_emoji(tmp_path / "cache")
    assert not data.emoji_directory(tmp_path / "cache").exists()


def test_a_package_without_the_file_is_corrupt(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "some.tgz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("package/other.json"))
    with pytest.raises(CorruptData, match=r"no file package/icons\.json"):
        data._member(tmp_path / "some.tgz", "package/icons.json")


def test_the_data_command_counts_emoji_by_style(found: EmojiSet) -> None:
    result = CliRunner().invoke(app, ["fetch", "emoji", "--json"], catch_exceptions=False)
    assert json.loads(result.stdout)["styles"]["openmoji"] > 1300
