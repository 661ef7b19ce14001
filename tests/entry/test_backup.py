"""Backup and restore: what comes back is what went in, all of it or nothing, and never over something by accident."""

import json
import os
import re
import stat
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from backups import ARTEFACT, State, an_artefact
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from noodle_ray.actors.artefact_store import ArtefactStore
from noodle_ray.entry.backup.contents import places
from noodle_ray.entry.backup.reading import open_backup
from noodle_ray.entry.cli.main import app
from noodle_ray.entry.cluster.cluster_file import ClusterFile, StartedProcess
from noodle_ray.entry.training.teaching import heads_directory
from noodle_ray.errors import Conflict, CorruptData, InvalidInput, NotFound, Unavailable
from noodle_ray.store.changes import Put
from noodle_ray.store.database import Database
from noodle_ray.store.tables import RUNNING, TABLES

TOKEN = "the-token-of-this-cluster"
LASTING = {
    "modules": {"a@1": {"sha256": ARTEFACT.sha256, "yanked": False}},
    "states": {"a": {"state": "AAEC", "version": "1"}},
    "sessions": {"s": {"turns": [1.5, None, "größer"]}},
}
RUNS = {"nodes": {"n": {"name": "head"}}, "loads": {"a": {"name": "a"}}}
FILES = {
    "heads/pets.safetensors": bytes(range(256)),
    "heads/pets.json": b"{}",
    "indexes/modules.index": b"\x00\n\r\x1a",
}


@pytest.fixture(autouse=True)
def _no_token_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)


@pytest.fixture
def state(tmp_path: Path) -> State:
    filled = State(tmp_path / "state").fill({**LASTING, **RUNS}, FILES, [ARTEFACT])
    (filled.folder / "token").write_text(TOKEN)
    return filled


@pytest.fixture
def backup(state: State, tmp_path: Path) -> Path:
    return state.export(tmp_path / "backup.zip", with_token=True)


@pytest.fixture
def other(tmp_path: Path) -> State:
    return State(tmp_path / "other")


KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=40)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | KEYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
ROWS = st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=4), max_size=4)
_NAME = "[a-z][a-z0-9-]{0,8}"
NAMES = st.from_regex(rf"heads/{_NAME}\.(safetensors|json|md)|indexes/{_NAME}\.index", fullmatch=True)


class TestRoundTrip:
    @settings(max_examples=25)
    @given(tables=st.dictionaries(st.sampled_from(TABLES), ROWS), files=st.dictionaries(NAMES, st.binary(max_size=200)))
    def test_what_comes_back_is_what_went_in(self, tables: dict[str, dict[str, Any]], files: dict[str, bytes]) -> None:
        for row in tables.get("modules", {}).values():
            row["sha256"] = ARTEFACT.sha256
        with tempfile.TemporaryDirectory() as folder:
            here, there = State(Path(folder) / "here"), State(Path(folder) / "there")
            here.fill(tables, files, [ARTEFACT])
            there.import_(here.export(Path(folder) / "backup.zip"), with_running=True)
            assert there.tables() == here.tables() == {table: rows for table, rows in tables.items() if rows}
            assert there.files() == here.files() == files

    def test_artefacts_come_along(self, backup: Path, other: State) -> None:
        other.import_(backup)
        assert ArtefactStore(other.settings.artefacts).get(ARTEFACT.sha256) == ARTEFACT.archive

    def test_what_ends_with_a_cluster_stays_away_unless_it_is_asked_for(self, backup: Path, other: State) -> None:
        other.import_(backup)
        assert other.tables() == LASTING
        other.import_(backup, replace=True, with_running=True)
        assert other.tables() == {**LASTING, **RUNS}
        assert set(RUNS) <= set(RUNNING) <= set(TABLES)

    def test_an_empty_state(self, tmp_path: Path, other: State) -> None:
        other.import_(State(tmp_path / "empty").export(tmp_path / "empty.zip"))
        assert (other.tables(), other.files()) == ({}, {})

    def test_the_heads_are_where_they_are_trained(self, state: State) -> None:
        assert places(state.settings)[0].folder == heads_directory(state.settings)

    def test_only_what_is_state(self, state: State, tmp_path: Path) -> None:
        for name in ("heads/.new-x", "heads/notes.txt", "indexes/.new-1", "logs/x.log"):
            path = state.path(name) if "logs" not in name else state.folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text("no state")
        state.path("heads/link.json").symlink_to("/etc/hostname")
        state.export(tmp_path / "b.zip")
        with open_backup(tmp_path / "b.zip") as backup:
            assert {name for name, _ in [*backup.names("head"), *backup.names("index")]} == set(FILES)

    def test_modules_that_are_published_meanwhile_are_whole_in_it(self, state: State, tmp_path: Path) -> None:
        enough = threading.Event()

        def publish() -> None:
            database, store = Database.open(state.settings.database), ArtefactStore(state.settings.artefacts)
            for number in range(1000):
                artefact = an_artefact(f"m{number}")
                store.put(artefact)
                database.apply([Put("modules", f"m{number}@1", {"sha256": artefact.sha256})])
                database.apply([Put("states", f"m{number}", {"version": "1"})])
                if enough.is_set():
                    break
            database.close()

        publisher = threading.Thread(target=publish)
        publisher.start()
        for number in range(5):
            with open_backup(state.export(tmp_path / f"{number}.zip")) as backup:
                published = {key.partition("@")[0] for key in backup.rows("modules")}
                assert set(backup.rows("states")) <= published
        enough.set()
        publisher.join()


class TestFile:
    def test_is_for_its_owner_alone(self, backup: Path, other: State) -> None:
        assert stat.S_IMODE(backup.stat().st_mode) == 0o600
        other.import_(backup)
        assert stat.S_IMODE((other.folder / "token").stat().st_mode) == 0o600

    def test_has_no_token_unless_it_is_asked_for(self, state: State, tmp_path: Path, other: State) -> None:
        path = state.export(tmp_path / "b.zip")
        assert TOKEN.encode() not in path.read_bytes()
        other.import_(path)
        assert not (other.folder / "token").exists()

    def test_has_the_token_where_it_is_asked_for(self, backup: Path, other: State) -> None:
        other.import_(backup)
        assert (other.folder / "token").read_text() == TOKEN

    def test_never_replaces_another(self, state: State, backup: Path) -> None:
        before = backup.read_bytes()
        with pytest.raises(Conflict, match="is there already"):
            state.export(backup)
        assert backup.read_bytes() == before

    def test_is_there_whole_or_not_at_all(self, state: State, tmp_path: Path) -> None:
        artefacts = state.folder / "artefacts"
        (artefacts / f"{ARTEFACT.sha256}.zip").unlink()
        (tmp_path / "out").mkdir()
        with pytest.raises(CorruptData, match="is not in the store"):
            state.export(tmp_path / "out" / "b.zip")
        assert list((tmp_path / "out").iterdir()) == []

    def test_a_token_that_is_not_there_is_told(self, other: State, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match="cluster token"):
            other.export(tmp_path / "b.zip", with_token=True)

    def test_a_folder_that_is_not_there_is_told(self, state: State, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match="file: its folder is not there"):
            state.export(tmp_path / "nowhere" / "b.zip")

    def test_a_disk_that_refuses_is_told(self, state: State) -> None:
        with pytest.raises(Unavailable, match="cannot be written"):
            state.export(Path("/proc/backup.zip"))


class TestImport:
    def test_refuses_a_running_cluster(self, backup: Path, other: State) -> None:
        alive = StartedProcess.of(os.getpid(), "head", "127.0.0.2")
        where = {"address": "127.0.0.2:6379", "dashboard_url": "", "gateway_url": ""}
        for cluster in (ClusterFile(**where, processes=(alive,)), ClusterFile(**where, attached=True)):
            cluster.save(other.folder)
            with pytest.raises(Conflict, match="end it first"):
                other.import_(backup, replace=True)
        ClusterFile(**where, processes=(alive.model_copy(update={"started_at": 0.0}),)).save(other.folder)
        with pytest.raises(Conflict, match="ended without a `noodle down`"):
            other.import_(backup)
        other.import_(backup, with_running=True)

    @pytest.mark.parametrize(
        ("tables", "files", "words"),
        [
            ({"states": {"b": {}}}, {}, "1 rows of states"),
            ({"nodes": {"b": {}}}, {}, "1 rows of nodes"),
            ({}, {"heads/x.json": b""}, "1 files of heads"),
            ({}, {"indexes/x.index": b""}, "1 files of indexes"),
            ({}, {"token": b"another-token"}, "another token"),
        ],
    )
    def test_refuses_what_is_there_and_replaces_it_when_told(
        self, backup: Path, other: State, tables: dict[str, Any], files: dict[str, bytes], words: str
    ) -> None:
        other.fill(tables, files)
        with pytest.raises(Conflict, match=f"there is a state already: {words}; --replace"):
            other.import_(backup)
        assert (other.tables(), other.files()) == (tables, {n: c for n, c in files.items() if n != "token"})
        other.import_(backup, replace=True)
        assert (other.tables(), other.files()) == (LASTING, FILES)
        assert (other.folder / "token").read_text() == TOKEN

    def test_the_same_token_is_no_obstacle(self, backup: Path, other: State) -> None:
        other.fill({}, {"token": TOKEN.encode() + b"\n"})
        other.import_(backup)
        assert (other.tables(), other.files()) == (LASTING, FILES)

    @pytest.mark.parametrize("there", [True, False])
    def test_a_store_that_goes_away_leaves_all_as_it_was(
        self, backup: Path, other: State, monkeypatch: pytest.MonkeyPatch, there: bool
    ) -> None:
        tables = {"states": {"b": {"x": 1}}} if there else {}
        files = {"heads/x.json": b"1", "indexes/y.index": b"2"} if there else {}
        other.fill(tables, files)
        (other.folder / "token").write_text("another")

        def away(self: Database, changes: Any) -> None:
            assert other.files() == FILES
            raise Unavailable("the database does not answer")

        with monkeypatch.context() as patch:
            patch.setattr(Database, "apply", away)
            with pytest.raises(Unavailable, match="does not answer"):
                other.import_(backup, replace=True)
        assert (other.tables(), other.files()) == (tables, files)
        assert (other.folder / "token").read_text() == "another"
        assert [path.name for path in other.folder.iterdir() if path.name.startswith(".import")] == []

    def test_leaves_nothing_behind(self, backup: Path, other: State) -> None:
        other.import_(backup)
        left = {path.name.split(".sqlite")[0] for path in other.folder.iterdir()}
        assert left == {"noodle", "artefacts", "heads", "fusion", "token"}


class TestCommand:
    def run(self, state: State, *words: str) -> Result:
        return CliRunner().invoke(app, ["state", *words], env={"NOODLE_STATE_DIR": str(state.folder)})

    def test_there_and_back(self, state: State, other: State, tmp_path: Path) -> None:
        path = str(tmp_path / "b.zip")
        said = self.run(state, "export", path)
        assert said.exit_code == 0 and f"exported to {path}" in said.stdout
        assert self.run(other, "check", path).exit_code == 0
        said = self.run(other, "import", path, "--json")
        told = json.loads(said.stdout)
        assert told["files"] == {"artefact": 1, "head": 2, "index": 1}
        assert told["rows"]["modules"] == 1 and told["token"] is False
        assert told["left_out"] == list(RUNNING)
        said = self.run(other, "import", path, "--replace")
        assert re.search(r"table +nodes +1 \(left out\)", said.stdout) and re.search(
            r"table +states +1 *\n", said.stdout
        )
        assert other.tables() == LASTING

    def test_a_token_is_told_of_but_not_shown(self, state: State, tmp_path: Path) -> None:
        said = self.run(state, "export", str(tmp_path / "b.zip"), "--with-token")
        assert "token" in said.stdout and TOKEN not in said.output

    def test_no_backup_there(self, other: State, tmp_path: Path) -> None:
        assert isinstance(self.run(other, "import", str(tmp_path / "nothing.zip")).exception, NotFound)
        assert not other.folder.exists()
