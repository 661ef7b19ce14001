"""Backups that are damaged, or that somebody made to do harm: told in time, and nothing is touched."""

import io
import json
import struct
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from backups import ARTEFACT, State, a_member, an_artefact, forge
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noodle_ray.entry.backup import reading
from noodle_ray.entry.backup.contents import Manifest
from noodle_ray.entry.backup.reading import open_backup
from noodle_ray.errors import CorruptData, InvalidInput, NoodleError, NotFound, TooLarge

ROW = b'{"key": "a@1", "document": {"sha256": "%s"}}\n' % ARTEFACT.sha256.encode()
WHOLE = {"tables/modules.jsonl": ROW, f"artefacts/{ARTEFACT.sha256}.zip": ARTEFACT.archive, "heads/a.json": b"{}"}


def refuse(path: Path, kind: type[NoodleError], words: str) -> None:
    """The backup is refused, and so is its import, which makes nothing."""
    with pytest.raises(kind, match=words), open_backup(path):
        pass
    state = State(path.parent / "state")
    with pytest.raises(kind, match=words):
        state.import_(path, replace=True, with_running=True)
    assert not state.folder.exists()


def test_what_is_forged_here_is_whole_but_for_what_is_forged(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    state.import_(forge(tmp_path / "b.zip", WHOLE))
    assert state.files() == {"heads/a.json": b"{}"}


class TestDamage:
    def test_no_file(self, tmp_path: Path) -> None:
        refuse(tmp_path / "nothing.zip", NotFound, "no backup")

    @pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + b"\x00" * 17])
    def test_no_zip(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "b.zip").write_bytes(content)
        refuse(tmp_path / "b.zip", CorruptData, "is no whole backup")

    def test_cut_off(self, tmp_path: Path) -> None:
        path = forge(tmp_path / "b.zip", WHOLE)
        path.write_bytes(path.read_bytes()[:-200])
        refuse(path, CorruptData, "is no whole backup")

    @settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(place=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
    def test_a_byte_that_flipped_is_found_or_means_nothing(self, tmp_path: Path, place: float, bits: int) -> None:
        path = forge(tmp_path / "whole.zip", WHOLE)
        content = bytearray(path.read_bytes())
        content[int(place * len(content))] ^= bits
        (tmp_path / "flipped.zip").write_bytes(content)
        with suppress(NoodleError), open_backup(tmp_path / "flipped.zip") as backup:
            assert {name: backup.read(name) for name in WHOLE} == WHOLE

    def test_a_content_that_changed_with_its_checksum(self, tmp_path: Path) -> None:
        members = [a_member(name, content) for name, content in WHOLE.items()]
        path = forge(tmp_path / "b.zip", {**WHOLE, "heads/a.json": b"[]"}, members=members)
        refuse(path, CorruptData, r"heads/a\.json is not what its manifest says")

    @pytest.mark.parametrize("members", [[], [a_member("heads/a.json", b"{}")] * 2, [a_member("heads/b.json", b"{}")]])
    def test_a_manifest_of_other_files(self, tmp_path: Path, members: list[dict[str, Any]]) -> None:
        path = forge(tmp_path / "b.zip", {"heads/a.json": b"{}"}, members=members)
        refuse(path, CorruptData, "does not hold the files")

    @pytest.mark.parametrize(
        ("rows", "words"), [({}, "rows of other tables"), ({"modules": 2}, "has other rows than its manifest says")]
    )
    def test_other_counts(self, tmp_path: Path, rows: dict[str, int], words: str) -> None:
        refuse(forge(tmp_path / "b.zip", WHOLE, rows=rows), CorruptData, words)

    def test_a_module_without_its_artefact(self, tmp_path: Path) -> None:
        path = forge(tmp_path / "b.zip", {"tables/modules.jsonl": ROW})
        refuse(path, CorruptData, f"lacks the artefact {ARTEFACT.sha256}")

    @pytest.mark.parametrize(
        "line",
        [
            b"no json",
            b"[1]",
            b'{"key": "a"}',
            b'{"key": 1, "document": {}}',
            b'{"key": "a", "document": []}',
            b'{"key": "a", "document": {}, "more": 1}',
            b'{"key": "%s", "document": {}}' % (b"k" * 301),
            b'{"key": "a", "document": ' + b'{"a":' * 100_000,
            b"\xff\xfe",
        ],
        ids=["text", "list", "half", "number", "array", "more", "long", "deep", "bytes"],
    )
    def test_lines_that_are_no_rows(self, tmp_path: Path, line: bytes) -> None:
        refuse(forge(tmp_path / "b.zip", {"tables/states.jsonl": line + b"\n"}), CorruptData, "table states has")

    def test_a_key_twice(self, tmp_path: Path) -> None:
        lines = b'{"key": "a", "document": {}}\n' * 2
        refuse(forge(tmp_path / "b.zip", {"tables/states.jsonl": lines}), CorruptData, "has other rows")

    def test_modules_without_hashes(self, tmp_path: Path) -> None:
        lines = b'{"key": "a", "document": {}}\n'
        refuse(forge(tmp_path / "b.zip", {"tables/modules.jsonl": lines}), CorruptData, "without the hash")

    @pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000], ids=["empty", "cut", "deep"])
    def test_a_manifest_that_is_none(self, tmp_path: Path, content: bytes) -> None:
        with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
            archive.writestr("manifest.json", content)
        refuse(tmp_path / "b.zip", CorruptData, r"manifest\.json is damaged")

    @pytest.mark.parametrize("change", [{"format": "one"}, {"format": 0}, {"members": {}}, {"stray": 1}])
    def test_a_manifest_with_other_fields(self, tmp_path: Path, change: dict[str, Any]) -> None:
        refuse(forge(tmp_path / "b.zip", WHOLE, **change), InvalidInput, f"invalid Manifest: {next(iter(change))}")


class TestHostility:
    def test_a_newer_format_says_who_reads_it(self, tmp_path: Path) -> None:
        refuse(forge(tmp_path / "b.zip", WHOLE, format=2), InvalidInput, "format: is 2, as noodle-ray 9 writes it")

    @pytest.mark.parametrize(
        "name",
        [
            "../token",
            "/etc/passwd",
            "heads/../../x.json",
            "heads/a/b.json",
            "heads/.a.json",
            "heads/a.py",
            "indexes/..index",
            "artefacts/abc.zip",
            "cluster.json",
            "tokens",
            "tables/../nodes.jsonl",
            "heads\\a.json",
            "heads/a.json\n",
        ],
    )
    def test_names_that_lead_elsewhere(self, tmp_path: Path, name: str) -> None:
        refuse(forge(tmp_path / "b.zip", {name: b"x"}), InvalidInput, "holds a name that no backup has")

    def test_a_table_of_another_kind(self, tmp_path: Path) -> None:
        refuse(forge(tmp_path / "b.zip", {"tables/secrets.jsonl": b""}), InvalidInput, "known are allocations, nodes")

    def test_a_bomb(self, tmp_path: Path) -> None:
        zeros = {"heads/a.json": b"0" * 10_000_000}
        path = forge(tmp_path / "b.zip", zeros, compress=zipfile.ZIP_DEFLATED)
        assert path.stat().st_size < 100_000
        refuse(path, InvalidInput, "nothing compressed")

    def test_files_that_overlap(self, tmp_path: Path) -> None:
        """Many names for the same bytes: stored, and still more than there is."""
        path = forge(tmp_path / "b.zip", {"heads/a.json": b"0" * 1_000_000})
        with zipfile.ZipFile(path) as archive:
            first = archive.getinfo("heads/a.json")
        content = path.read_bytes()
        end = content.rindex(b"PK\x05\x06")
        size, offset = struct.unpack("<LL", content[end + 12 : end + 20])
        directory = content[offset : offset + size]
        entry = directory[: 46 + len(first.filename)]
        more = b"".join(entry.replace(b"heads/a", b"heads/%c" % letter) for letter in b"bcdefgh")
        counted = struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 9, 9, size + len(more), offset, 0)
        path.write_bytes(content[:offset] + directory + more + counted)
        refuse(path, InvalidInput, "claims to hold more than its file does")

    @pytest.mark.parametrize(
        ("mode", "words"), [(0o120777, "no links"), (0o040755, "no links"), (0o010644, "no links")]
    )
    def test_what_is_no_plain_file(self, tmp_path: Path, mode: int, words: str) -> None:
        path = forge(tmp_path / "b.zip", {})
        with zipfile.ZipFile(path, "a") as archive:
            info = zipfile.ZipInfo("heads/a.json")
            info.external_attr = mode << 16
            archive.writestr(info, b"/etc/passwd")
        refuse(path, InvalidInput, words)

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_a_name_twice(self, tmp_path: Path) -> None:
        members = [a_member("heads/a.json", b"{}")] * 2
        path = forge(tmp_path / "b.zip", {"heads/a.json": b"{}"}, members=members)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("heads/a.json", b"[]")
        refuse(path, CorruptData, "does not hold the files")

    def test_a_zip_of_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "b.zip").write_bytes(ARTEFACT.archive)
        refuse(tmp_path / "b.zip", InvalidInput, "was not made by `noodle state export`")

    def test_too_many_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reading, "MAX_MEMBERS", 3)
        refuse(forge(tmp_path / "b.zip", WHOLE), TooLarge, "4 files, allowed are 3")

    def test_too_large_a_manifest(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reading, "MAX_MANIFEST_BYTES", 100)
        refuse(forge(tmp_path / "b.zip", WHOLE), TooLarge, "manifest.json is too large")

    @pytest.mark.parametrize("make", [lambda: b"no zip", lambda: an_artefact("b").archive], ids=["no zip", "another"])
    def test_an_artefact_that_is_another_is_not_kept(self, tmp_path: Path, make: Callable[[], bytes]) -> None:
        path = forge(tmp_path / "b.zip", {f"artefacts/{ARTEFACT.sha256}.zip": make()})
        state = State(tmp_path / "state")
        with pytest.raises(NoodleError):
            state.import_(path)
        assert (state.tables(), state.files()) == ({}, {})
        assert not (state.folder / "artefacts").exists()


@given(st.binary(max_size=300))
def test_bytes_from_anywhere(content: bytes) -> None:
    """The manifest's reader tells what is wrong with whatever it is given."""
    with suppress(NoodleError):
        assert isinstance(reading._parse_manifest(content), Manifest)


def test_a_backup_is_an_ordinary_zip(tmp_path: Path) -> None:
    """Whoever has lost noodle-ray can still read it."""
    path = State(tmp_path / "s").fill({"states": {"a": {"x": 1}}}, {}).export(tmp_path / "b.zip")
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        assert archive.testzip() is None
        assert json.loads(archive.read("tables/states.jsonl")) == {"key": "a", "document": {"x": 1}}
