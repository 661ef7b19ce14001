"""The artefact store on several file systems: kept whole, verified, and its faults told apart."""

from __future__ import annotations

import uuid
from pathlib import Path

import fsspec
import pytest

from noodle_ray.actors.artefact_store import ArtefactStore
from noodle_ray.errors import CorruptData, InvalidSettings, Unavailable
from noodle_ray.modules.archive import write_entries
from noodle_ray.modules.artefact import Artefact, read_artefact

MANIFEST = b'[tool.noodle.module]\nname = "a"\nversion = "1"\nentry_point = "a"\n'


@pytest.fixture
def artefact() -> Artefact:
    return read_artefact(write_entries({"pyproject.toml": MANIFEST, "a.py": b"x = 1"}))


@pytest.fixture(params=["file", "local", "path", "chain", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    folder = tmp_path / "some where" / "artefacts"
    return {
        "file": f"file://{folder}",
        "local": f"local://{folder}/",
        "path": str(folder),
        "chain": f"dir::file://{folder}",
        "memory": f"memory://{uuid.uuid4().hex}/artefacts",
    }[str(request.param)]


def test_gives_back_what_was_put_however_often(url: str, artefact: Artefact) -> None:
    ArtefactStore(url).put(artefact)
    ArtefactStore(url).put(artefact)
    assert ArtefactStore(url).get(artefact.sha256) == artefact.archive
    files, root = fsspec.url_to_fs(url)
    assert [Path(name).name for name in files.ls(root, detail=False)] == [f"{artefact.sha256}.zip"]


def test_what_was_altered_is_refused_and_mended_by_putting_it_again(url: str, artefact: Artefact) -> None:
    store = ArtefactStore(url)
    store.put(artefact)
    files, root = fsspec.url_to_fs(url)
    files.pipe_file(f"{root}/{artefact.sha256}.zip", artefact.archive + b"x")
    with pytest.raises(CorruptData, match="was altered"):
        store.get(artefact.sha256)
    store.put(artefact)
    assert store.get(artefact.sha256) == artefact.archive


def test_what_is_not_there_is_told(url: str, artefact: Artefact) -> None:
    with pytest.raises(CorruptData, match=f"{artefact.sha256}.zip is not in the store"):
        ArtefactStore(url).get(artefact.sha256)


def test_a_write_that_breaks_off_leaves_nothing(artefact: Artefact, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"memory://{uuid.uuid4().hex}"
    files, root = fsspec.url_to_fs(url)

    def breaks(path: str, content: bytes) -> None:
        with files.open(path, "wb") as file:
            file.write(content[:10])
        raise ConnectionResetError("the line is dead")

    monkeypatch.setattr(files, "pipe_file", breaks)
    with pytest.raises(Unavailable, match=f"{url} cannot be used now: the line is dead"):
        ArtefactStore(url).put(artefact)
    assert files.ls(root) == []


def test_a_full_disk_leaves_nothing(tmp_path: Path, artefact: Artefact, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Unavailable, match="No space left on device"):
        ArtefactStore(str(tmp_path)).put(artefact)
    assert list(tmp_path.iterdir()) == []


def test_one_that_cannot_be_reached(artefact: Artefact) -> None:
    store = ArtefactStore("ftp://me:secret@127.0.0.1:1/artefacts")  # nobody listens there
    for use in (lambda: store.put(artefact), lambda: store.get(artefact.sha256)):
        with pytest.raises(Unavailable, match=r"ftp://127\.0\.0\.1:1/artefacts cannot be used now.*refused") as caught:
            use()
        assert "secret" not in str(caught.value)


def test_a_folder_that_is_a_file(tmp_path: Path, artefact: Artefact) -> None:
    (tmp_path / "artefacts").write_bytes(b"")
    with pytest.raises(Unavailable, match="cannot be used now"):
        ArtefactStore(f"file://{tmp_path}/artefacts").put(artefact)


@pytest.mark.parametrize("url", ["nope://bucket", "nope::file:///tmp/x", "dir::nope://x"])
def test_an_unknown_protocol_names_the_setting(url: str) -> None:
    with pytest.raises(InvalidSettings, match="NOODLE_ARTEFACTS_URL: 'nope' is no protocol that fsspec knows"):
        ArtefactStore(url)


def test_a_driver_that_is_not_installed_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(protocol: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(InvalidSettings, match=r"NOODLE_ARTEFACTS_URL: the package that speaks 's3' .*Install s3fs"):
        ArtefactStore("s3://bucket/folder")
