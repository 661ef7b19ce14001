"""Artefacts: the same bytes from the same files, refusals of hostile archives, and a cache that is whole or nothing."""

import contextlib
import io
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.errors import CorruptData, InvalidInput, NoodleError, TooLarge
from noodle_ray.modules import archive, artefact
from noodle_ray.modules.archive import read_entries, write_entries
from noodle_ray.modules.artefact import cached, content_hash, is_cached, pack_module, read_artefact, unpack

MANIFEST = b'[tool.noodle.module]\nname = "greeter"\nversion = "1.0"\nentry_point = "greeter.hello"\n'
FILES = {"pyproject.toml": MANIFEST, "greeter/__init__.py": b"", "greeter/hello.py": b"def hello(): return 'hi'\n"}


@pytest.fixture
def module(tmp_path: Path) -> Path:
    return write(tmp_path / "module", FILES)


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def zipped(files: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] = lambda info: None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            change(info)
            opened.writestr(info, content)
    return buffer.getvalue()


class TestPacking:
    def test_depends_on_names_and_contents_only(self, module: Path, tmp_path: Path) -> None:
        again = write(tmp_path / "again", dict(reversed(FILES.items())))
        os.utime(again / "pyproject.toml", (1, 1))
        (again / "greeter/hello.py").chmod(0o755)
        assert pack_module(module) == pack_module(again)

    def test_changes_with_the_content(self, module: Path) -> None:
        before = pack_module(module)
        (module / "greeter/hello.py").write_text("def hello(): return 'ho'\n")
        assert content_hash(pack_module(module)) != content_hash(before)

    def test_leaves_out_what_is_not_source(self, module: Path) -> None:
        before = pack_module(module)
        extra = ["__pycache__/a.pyc", "greeter/__pycache__/a.pyc", ".git/config", ".env", "x.egg-info/PKG-INFO"]
        write(module, dict.fromkeys(extra, b"x"))
        assert pack_module(module) == before

    def test_of_a_wheel_is_that_of_its_files(self, module: Path, tmp_path: Path) -> None:
        wheel = tmp_path / "greeter-1.0-py3-none-any.whl"
        wheel.write_bytes(zipped(FILES))
        assert pack_module(wheel) == pack_module(module)

    @pytest.mark.parametrize("manifest", ["pyproject.toml", "greeter/pyproject.toml"])
    def test_of_a_package_that_can_be_imported(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manifest: str
    ) -> None:
        code = {name: content for name, content in FILES.items() if name.startswith("greeter/")}
        write(tmp_path / "site", {**code, manifest: MANIFEST, "another.py": b"", "another/__init__.py": b""})
        monkeypatch.syspath_prepend(tmp_path / "site")
        assert read_entries(pack_module(Path("greeter"))) == {**code, manifest: MANIFEST}
        with pytest.raises(InvalidInput, match="must be a directory"):
            pack_module(Path("nobody"))

    def test_a_link_within_is_its_content(self, module: Path) -> None:
        (module / "greeter/also.py").symlink_to("hello.py")
        assert read_entries(pack_module(module))["greeter/also.py"] == FILES["greeter/hello.py"]

    @pytest.mark.parametrize(
        ("target", "problem"),
        [("/etc/passwd", "leads out"), ("nowhere", "leads nowhere"), ("../..", "links to folders")],
    )
    def test_links_that_lead_elsewhere(self, module: Path, target: str, problem: str) -> None:
        (module / "greeter/link").symlink_to(target)
        with pytest.raises(InvalidInput, match=problem):
            pack_module(module)

    def test_a_pipe(self, module: Path) -> None:
        os.mkfifo(module / "greeter/pipe")
        with pytest.raises(InvalidInput, match="regular files only"):
            pack_module(module)

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match="must be a directory, a wheel, a zip file or an importable package"):
            pack_module(tmp_path / "nothing")

    def test_no_package_of_the_entry_point(self, module: Path) -> None:
        for name in ("hello.py", "__init__.py"):
            (module / "greeter" / name).unlink()
        with pytest.raises(InvalidInput, match="no package 'greeter'"):
            pack_module(module)

    @pytest.mark.parametrize("name", ["json/__init__.py", "json.py", "ray/__init__.py", "noodle_ray.py"])
    def test_a_package_with_anothers_name(self, module: Path, name: str) -> None:
        write(module, {name: b""})
        with pytest.raises(InvalidInput, match="has a package with the name of one"):
            pack_module(module)

    def test_limits(self, module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(artefact, "MAX_BYTES", 100)
        with pytest.raises(TooLarge, match="allowed are 100"):
            pack_module(module)
        monkeypatch.setattr(artefact, "MAX_BYTES", 1000)
        monkeypatch.setattr(artefact, "MAX_FILES", 2)
        with pytest.raises(TooLarge, match="3 files, allowed are 2"):
            pack_module(module)

    def test_what_is_published_is_packed_anew(self, module: Path) -> None:
        read = read_artefact(zipped({**FILES, "greeter/__pycache__/hello.pyc": b"x"}))
        assert read.archive == pack_module(module)
        assert read.sha256 == content_hash(read.archive) and read.manifest.name == "greeter"


names = st.lists(st.text("abcXYZ_-. é", min_size=1, max_size=6), min_size=1, max_size=3).map("/".join)


@given(st.dictionaries(names, st.binary(max_size=30), max_size=6))
def test_whatever_can_be_read_comes_back_whole(files: dict[str, bytes]) -> None:
    packed = zipped(files)
    try:
        entries = read_entries(packed)
    except InvalidInput:
        return
    assert entries == files
    assert read_entries(write_entries(entries)) == files


def test_a_damaged_name_that_is_empty_is_refused() -> None:
    """A zero byte at its start ends a name there: zipfile itself trips over what is left."""
    packed = bytearray(write_entries(FILES))
    for name in FILES:
        at = packed.rindex(name.encode())  # in the directory at the end
        packed[at] = 0
    with pytest.raises(InvalidInput):
        read_artefact(bytes(packed))


@given(st.integers(0, 600), st.integers(0, 255))
def test_damaged_bytes_are_refused_or_harmless(position: int, value: int) -> None:
    packed = bytearray(write_entries(FILES))
    packed[position % len(packed)] = value
    with contextlib.suppress(NoodleError):  # nothing but our own errors may come out
        read_artefact(bytes(packed))


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(InvalidInput):
        read_artefact(content)


class TestHostileArchives:
    @pytest.mark.parametrize(
        "name",
        ["../up.py", "/etc/passwd", "a/../../up", "a//b", "a/./b", "C:/x", "a\\b", "nul\x01", "x" * 300, "a?"],
    )
    def test_names(self, name: str) -> None:
        with pytest.raises(InvalidInput, match="archive"):
            read_entries(zipped({name: b"x"}))

    def test_a_name_that_is_a_file_and_a_folder(self) -> None:
        with pytest.raises(InvalidInput, match="a file and a folder"):
            read_entries(zipped({"a": b"", "a/b": b""}))

    def test_two_spellings_of_one_name(self) -> None:
        with pytest.raises(InvalidInput, match="two spellings"):
            read_entries(zipped({"a/B.py": b"", "a/b.py": b""}))

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_one_name_twice(self) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as opened:
            opened.writestr("a", b"1")
            opened.writestr("a", b"2")
        with pytest.raises(InvalidInput, match="one name twice"):
            read_entries(buffer.getvalue())

    def test_a_link(self) -> None:
        def link(info: zipfile.ZipInfo) -> None:
            info.external_attr = (stat.S_IFLNK | 0o777) << 16

        with pytest.raises(InvalidInput, match="no links"):
            read_entries(zipped({"a": b"/etc/passwd"}, link))

    def test_encryption(self) -> None:
        packed = zipped({"a": b"x"})
        encrypted = packed.replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00")
        assert encrypted != packed
        with pytest.raises(InvalidInput, match="encrypted"):
            read_entries(encrypted)

    def test_other_compression(self) -> None:
        def bzip(info: zipfile.ZipInfo) -> None:
            info.compress_type = zipfile.ZIP_BZIP2

        with pytest.raises(InvalidInput, match="stored or deflated"):
            read_entries(zipped({"a": b"x"}, bzip))

    def test_a_bomb_is_stopped_while_it_grows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def deflated(info: zipfile.ZipInfo) -> None:
            info.compress_type = zipfile.ZIP_DEFLATED

        monkeypatch.setattr(archive, "MAX_BYTES", 10_000)
        bomb = zipped({"a": bytes(6_000), "b": bytes(6_000)}, deflated)
        assert len(bomb) < 1000
        with pytest.raises(TooLarge, match="bytes unpacked"):
            read_entries(bomb)

    def test_too_many_bytes_and_files(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archive, "MAX_FILES", 1)
        with pytest.raises(TooLarge, match="2 files"):
            read_entries(zipped({"a": b"", "b": b""}))
        monkeypatch.setattr(archive, "MAX_BYTES", 10)
        with pytest.raises(TooLarge, match="archive is too large"):
            read_entries(zipped({"a": b""}))

    def test_folders_are_no_files(self) -> None:
        assert read_entries(zipped({"a/": b"", "a/b": b"x"})) == {"a/b": b"x"}


class TestCache:
    def test_unpacks_once_and_verifies(self, module: Path, tmp_path: Path) -> None:
        packed = pack_module(module)
        sha256 = content_hash(packed)
        assert not is_cached(tmp_path, sha256)
        folder = unpack(packed, sha256, tmp_path)
        assert folder == tmp_path / "modules" / sha256
        assert {path.name for path in folder.rglob("*") if path.is_file()} == {
            "pyproject.toml",
            "__init__.py",
            "hello.py",
        }
        assert unpack(packed, sha256, tmp_path) == cached(tmp_path, sha256) == folder
        assert [path.name for path in (tmp_path / "modules").iterdir()] == [sha256]

    def test_compiled_files_do_not_matter(self, module: Path, tmp_path: Path) -> None:
        packed = pack_module(module)
        folder = unpack(packed, content_hash(packed), tmp_path)
        write(folder, {"greeter/__pycache__/hello.pyc": b"x"})
        assert is_cached(tmp_path, content_hash(packed))

    def test_other_bytes_than_the_hash_says(self, module: Path, tmp_path: Path) -> None:
        with pytest.raises(CorruptData, match="wanted is"):
            unpack(pack_module(module), "0" * 64, tmp_path)

    def test_an_altered_folder_is_found_and_replaced(self, module: Path, tmp_path: Path) -> None:
        packed = pack_module(module)
        sha256 = content_hash(packed)
        folder = unpack(packed, sha256, tmp_path)
        for spoil in (
            lambda: (folder / "greeter/hello.py").write_text("evil"),
            lambda: (folder / "greeter/more.py").write_text("evil"),
            lambda: (folder / "greeter/hello.py").unlink(),
            lambda: (folder / "greeter/link").symlink_to("/etc/passwd"),
        ):
            spoil()
            assert not is_cached(tmp_path, sha256)
            unpack(packed, sha256, tmp_path)
            assert is_cached(tmp_path, sha256)

    def test_another_process_was_faster(self, module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        packed = pack_module(module)
        sha256 = content_hash(packed)
        unpack(packed, sha256, tmp_path)
        answers = iter([False])
        real = artefact.is_cached
        monkeypatch.setattr(artefact, "is_cached", lambda cache, sha: next(answers, None) is None and real(cache, sha))
        rename = Path.rename

        def slow(path: Path, target: Path) -> Path:
            if path.name == "fresh":
                write(target, FILES)
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", slow)
        assert unpack(packed, sha256, tmp_path).is_dir()

    def test_a_full_disk_is_not_hidden(self, module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(path: Path, target: Path) -> Path:
            raise OSError("no space left")

        monkeypatch.setattr(Path, "rename", full)
        packed = pack_module(module)
        with pytest.raises(OSError, match="no space left"):
            unpack(packed, content_hash(packed), tmp_path)
        assert list((tmp_path / "modules").iterdir()) == []
