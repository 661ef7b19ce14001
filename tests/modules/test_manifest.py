"""The manifest: what it reads, what it normalises, and that every fault is named by its field."""

from pathlib import Path
from typing import Any

import pytest

from noodle_ray.errors import InvalidInput, TooLarge
from noodle_ray.modules.archive import write_entries
from noodle_ray.modules.manifest import MAX_MANIFEST_BYTES, Manifest, normalise_name, parse_manifest, read_manifest

FULL = """
[project]
name = "something-else"

[tool.noodle.module]
name = "Word_Count"
version = "2.0.0-rc1"
description = "Counts."
entry_point = "wordcount.counter:WordCount"
capabilities = ["net.outbound"]
health_check = "is_well"

[tool.noodle.module.requires]
Tokenizer = ">=1.2,<2"

[tool.noodle.module.resources]
cpus = 0.5
memory = "64MiB"
"""
EXAMPLES = Path(__file__).parents[2] / "examples" / "modules"


def manifest(**fields: Any) -> Manifest:
    return Manifest(**{"name": "a", "version": "1", "entry_point": "a", **fields})


def test_reads_every_field_and_normalises() -> None:
    read = parse_manifest(FULL.encode())
    assert (read.name, read.version, read.requires) == ("word-count", "2.0.0rc1", {"tokenizer": ">=1.2,<2"})
    assert read.resources is not None and read.resources.memory == 64 * 2**20
    assert (read.capabilities, read.health_check, read.package) == (("net.outbound",), "is_well", "wordcount")


def test_needs_three_fields_only() -> None:
    read = manifest()
    assert (read.description, read.requires, read.resources, read.health_check) == ("", {}, None, None)


def test_survives_json() -> None:
    read = parse_manifest(FULL.encode())
    assert Manifest.parse(read.to_json()) == read


@pytest.mark.parametrize("directory", sorted(path.parent for path in EXAMPLES.glob("*/*/pyproject.toml")), ids=str)
def test_the_examples_have_one(directory: Path) -> None:
    read = read_manifest(directory)
    assert read.name == directory.parent.name and read.version == directory.name


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "-a"),
        ("name", "a b"),
        ("name", "ä"),
        ("name", "a" * 101),
        ("name", 3),
        ("version", "new"),
        ("description", "x" * 1001),
        ("entry_point", ""),
        ("entry_point", "a/b.py"),
        ("entry_point", "a.b:"),
        ("entry_point", "a..b"),
        ("entry_point", "a:b:c"),
        ("entry_point", "a.class"),
        ("entry_point", "os;rm"),
        ("requires", {"b": "newest"}),
        ("requires", {"b c": ">=1"}),
        ("requires", {"b-c": ">=1", "b_c": ">=2"}),
        ("requires", ["b"]),
        ("resources", {"cpus": -1}),
        ("resources", {}),
        ("resources", {"cores": 1}),
        ("capabilities", ("Net",)),
        ("capabilities", ("a", "a")),
        ("health_check", "not a name"),
        ("health_check", "__del__"),
        ("colour", "red"),
    ],
)
def test_names_the_field_that_is_wrong(field: str, value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        manifest(**{field: value})
    assert [fault.field.partition(".")[0] for fault in caught.value.faults] == [field]


def test_must_not_need_itself() -> None:
    with pytest.raises(InvalidInput, match="requires: a must not need itself"):
        manifest(requires={"A": ">=1"})


def test_lists_all_faults() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_manifest(b'[tool.noodle.module]\nname = "a b"\nversion = "x"\n')
    assert [fault.field for fault in caught.value.faults] == ["name", "version", "entry_point"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[tool", "is not TOML"),
        (b"\xff\xfe", "is not TOML"),
        (b"", "has no table"),
        (b"tool = 3", "has no table"),
        (b"[tool.noodle]\nmodule = 3", "has no table"),
        (b"a = " + b"[" * 50_000, "is not TOML"),
    ],
)
def test_no_manifest(content: bytes, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        parse_manifest(content)


def test_a_huge_manifest() -> None:
    with pytest.raises(TooLarge, match=r"pyproject\.toml"):
        parse_manifest(b"#" * (MAX_MANIFEST_BYTES + 1))


def test_a_directory_without_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"has no pyproject\.toml"):
        read_manifest(tmp_path)


def test_in_an_archive_it_is_at_the_root_or_in_one_folder() -> None:
    inner = FULL.encode()
    assert read_manifest(write_entries({"pyproject.toml": inner, "a/pyproject.toml": b""})).name == "word-count"
    assert read_manifest(write_entries({"wordcount/pyproject.toml": inner})).name == "word-count"
    for entries in ({}, {"a/pyproject.toml": inner, "b/pyproject.toml": inner}, {"a/b/pyproject.toml": inner}):
        with pytest.raises(InvalidInput, match="needs one"):
            read_manifest(write_entries(entries))


def test_normalise_name() -> None:
    assert normalise_name("Word__Count") == "word-count"
    with pytest.raises(InvalidInput, match="name: must be"):
        normalise_name("../x")
