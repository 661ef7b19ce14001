"""The manifest: what it reads, what it normalises, and that every fault is named by its field."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.errors import InvalidInput, TooLarge
from noodle_ray.modules.archive import write_entries
from noodle_ray.modules.manifest import (
    MAX_MANIFEST_BYTES,
    Manifest,
    Replicas,
    StateSpec,
    normalise_name,
    parse_manifest,
    read_manifest,
)

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
    assert (read.runner, read.replicas, read.packages, read.vendor, read.idempotent) == (
        "in-host",
        Replicas(),
        (),
        False,
        (),
    )


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
        ("runner", "elsewhere"),
        ("state", {"schema_version": 0}),
        ("state", {"reads": ["one"]}),
        ("state", {"checkpoint_s": 0}),
        ("state", {"durability": True}),
        ("replicas", {"min": 0}),
        ("replicas", {"min": 2}),
        ("replicas", {"max": 1001}),
        ("replicas", {"calls": 0}),
        ("packages", ("numpy >=",)),
        ("packages", ("-r other.txt",)),
        ("packages", ("numpy\n--index-url=https://elsewhere",)),
        ("packages", ("./folder",)),
        ("vendor", "sometimes"),
        ("idempotent", ("not a name",)),
        ("idempotent", ("__del__",)),
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


class TestState:
    def test_as_it_is_written(self) -> None:
        read = parse_manifest(
            b'[tool.noodle.module]\nname = "a"\nversion = "1"\nentry_point = "a:A"\n'
            b"state = {schema_version = 3, reads = [1, 2], durable = true}"
        )
        assert read.state == StateSpec(schema_version=3, reads=(1, 2), durable=True, checkpoint_s=1.0)
        assert Manifest.parse(read.to_json()) == read
        assert manifest().state is None

    @pytest.mark.parametrize(
        ("fields", "problem"),
        [
            ({"replicas": {"max": 2}}, "replicas: a module that has state runs in one host: max must be 1"),
            ({"runner": "serve"}, "runner: a module that has state runs in-host or sandboxed"),
            ({"entry_point": "a.b"}, "entry_point: a module that has state is a class"),
        ],
    )
    def test_is_in_one_place(self, fields: dict[str, Any], problem: str) -> None:
        with pytest.raises(InvalidInput, match=problem):
            manifest(**{"entry_point": "a:A", "state": {}, **fields})
        manifest(**{"entry_point": "a:A", **fields})

    @given(st.builds(StateSpec, schema_version=st.integers(1, 9), reads=st.lists(st.integers(1, 9), max_size=5)))
    def test_reads_its_own_schema_and_those_that_it_lists(self, spec: StateSpec) -> None:
        readable = {number for number in range(1, 12) if spec.can_read(number)}
        assert readable == {spec.schema_version, *spec.reads}


limits = st.integers(0, 4) | st.integers(998, 1001)


@given(limits, limits)
def test_replicas_have_their_limits_in_order(least: int, most: int) -> None:
    try:
        read = Replicas(min=least, max=most)
    except InvalidInput:
        assert not 1 <= least <= most <= 1000
    else:
        assert 1 <= read.min <= read.max <= 1000 and (read.min, read.max) == (least, most)


class TestPackages:
    def test_are_spelt_in_one_way_and_once(self) -> None:
        read = manifest(packages=("numpy >=2, <3", "numpy<3,>=2", "idna[all]; python_version<'4'"))
        assert read.packages == ("numpy<3,>=2", 'idna[all]; python_version < "4"')
        assert Manifest.parse(read.to_json()) == read

    @pytest.mark.parametrize("package", ["a @ file:///tmp/a.whl", "a @ https://elsewhere/a.whl", "a@git+https://x/y"])
    def test_are_found_by_name_only(self, package: str) -> None:
        with pytest.raises(InvalidInput, match=r"packages: .* must be found by name in a package index"):
            manifest(packages=(package,))

    @given(st.lists(st.sampled_from(["numpy>=2", "idna", "attrs!=23", "idna==3.7"]), max_size=6))
    def test_read_again_are_the_same(self, packages: list[str]) -> None:
        read = manifest(packages=tuple(packages)).packages
        assert set(read) == set(packages) and manifest(packages=read).packages == read


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
