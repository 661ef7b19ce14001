"""`noodle fuse` and `noodle fusion index|session`: what they ask of the cluster, and what a person reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from noodle_ray.entry.cli.main import app
from noodle_ray.entry.index_rows import read_index_rows
from noodle_ray.errors import InvalidInput
from noodle_ray.fusion.index_messages import IndexInfo, KnownQuery, NewEntry, OpenedSession
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.fusion.result import ContextEffect, FusionResult, RankedCandidate

PICTURE = b"\x89PNG and more"


class Indexes:
    def __init__(self) -> None:
        self.known: dict[str, dict[str, NewEntry]] = {}
        self.fitted: list[KnownQuery] = []

    def _info(self, name: str) -> IndexInfo:
        return IndexInfo(name=name, kind="code", entries=len(self.known[name]), space="a-space")

    def list(self) -> Sequence[IndexInfo]:
        return [self._info(name) for name in self.known]

    describe = _info

    def entries(self, name: str) -> Sequence[str]:
        return list(self.known[name])

    def create(self, name: str, kind: str) -> IndexInfo:
        self.known.setdefault(name, {})
        return self._info(name)

    def add(self, name: str, entries: Sequence[NewEntry]) -> IndexInfo:
        self.known[name].update({entry.name: entry for entry in entries})
        return self._info(name)

    def remove(self, name: str, entries: Sequence[str]) -> IndexInfo:
        for entry in entries:
            self.known[name].pop(entry, None)
        return self._info(name)

    def fit(self, name: str, queries: Sequence[KnownQuery]) -> IndexInfo:
        self.fitted = list(queries)
        fitted = {"accuracy_percent": 87.5, "validated_on": 8}
        return self._info(name).model_copy(update={"fitted": fitted})

    def drop(self, name: str) -> None:
        del self.known[name]


class FakeCluster:
    """`connect()` of these tests: a cluster, and its fusion service."""

    def __init__(self) -> None:
        self.fusion, self.indexes = self, Indexes()
        self.asked: list[MultimodalInput] = []
        self.forgotten: list[str] = []

    def __enter__(self) -> FakeCluster:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def open_session(self) -> OpenedSession:
        return OpenedSession(session="sAbC-123_xyz", idle_ms=1000)

    def forget_session(self, session: str) -> None:
        self.forgotten.append(session)

    def process_multimodal_input(self, request: MultimodalInput) -> FusionResult:
        self.asked.append(request)
        return FusionResult(
            request_id="r-1",
            ask=request.ask,
            embedding=(1.0,),
            candidates=(
                RankedCandidate(candidate="wordcount", probability=0.9, meta={"version": "2.1"}),
                RankedCandidate(candidate="[b]draw", probability=0.1, meta={"version": "1.0"}),
            ),
            confidence=0.9,
            confident=True,
            contributions={"text": 0.4},
            modalities_used=("text",),
            late=("audio",),
            failed={"code": "no encoder reads code here"},
            cached=("text",),
            context=ContextEffect(
                turns=2, counted=True, contribution=0.25, candidate_without="draw", confidence_without=0.6
            ),
            encoders={"text": "e"},
            readings={"text": "counts words"},
            stage_ms={"text": 3.0, "total": 12.0},
        )


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    fake = FakeCluster()
    monkeypatch.setattr("noodle_ray.entry.client.connect", lambda: fake)
    return fake


@pytest.fixture
def noodle(cluster: FakeCluster) -> Callable[..., Result]:
    def call(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments))

    return call


class TestFuse:
    def test_everything_that_can_be_given(
        self, noodle: Callable[..., Result], cluster: FakeCluster, tmp_path: Path
    ) -> None:
        picture = tmp_path / "tom.png"
        picture.write_bytes(PICTURE)
        arguments = ["--text", "a cat?", "--text", "or a dog?", "--code", "x = 1", "--image", str(picture)]
        arguments += ["--candidates", "a cat, a dog,", "--candidate", "a fox, red", "--candidate-image", str(picture)]
        arguments += ["--session", "s1", "--no-context", "--top", "2", "--deadline-ms", "90", "--json"]
        result = noodle("fuse", *arguments)
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["candidates"][0]["candidate"] == "wordcount"
        assert cluster.asked == [
            MultimodalInput(
                text=("a cat?", "or a dog?"),
                code="x = 1",
                image=PICTURE,
                candidates=("a fox, red", "a cat", "a dog", {"label": "tom.png", "image": PICTURE}),
                session="s1",
                use_context=False,
                top=2,
                deadline_ms=90,
            )
        ]

    def test_what_a_person_reads(self, noodle: Callable[..., Result]) -> None:
        shown = noodle("fuse", "--text", "counts words", "--index", "modules").stdout
        assert "Found (confident: 90.0%)" in shown
        assert "wordcount" in shown and "2.1" in shown and "[b]draw" in shown
        assert "the session (2 turns) adds +0.250; without it: 'draw' at 60.0%" in shown
        assert "remembered" in shown and "audio came too late" in shown and "no encoder reads code here" in shown

    def test_one_question_at_a_time(self, noodle: Callable[..., Result], cluster: FakeCluster) -> None:
        result = noodle("fuse", "--text", "a", "--index", "modules", "--candidates", "a,b")
        assert isinstance(result.exception, InvalidInput) and cluster.asked == []


class TestIndex:
    def test_life_of_one(self, noodle: Callable[..., Result], cluster: FakeCluster, tmp_path: Path) -> None:
        (tmp_path / "bear.png").write_bytes(PICTURE)
        rows = [{"name": f"n{number}", "text": "a toy"} for number in range(149)]
        rows.append({"name": "bear", "image": "bear.png", "meta": {"price": 3}})
        (tmp_path / "toys.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
        assert "Index toys" in noodle("fusion", "index", "create", "toys").stdout
        added = noodle("fusion", "index", "add", "toys", str(tmp_path / "toys.jsonl"), "--json")
        assert added.exit_code == 0, added.output
        assert cluster.indexes.known["toys"]["bear"] == NewEntry(name="bear", image=PICTURE, meta={"price": 3})
        noodle("fusion", "index", "add", "toys", "--entry", "drum", "--text", "a drum")
        assert len(cluster.indexes.known["toys"]) == 151
        assert json.loads(noodle("fusion", "index", "show", "toys", "--json").stdout)["names"][-1] == "drum"
        assert "drum" in noodle("fusion", "index", "show", "toys").stdout
        noodle("fusion", "index", "remove", "toys", "drum", "ghost")
        assert "150" in noodle("fusion", "index", "list").stdout
        assert "dropped: toys" in noodle("fusion", "index", "drop", "toys").stdout
        assert json.loads(noodle("fusion", "index", "list", "--json").stdout) == []

    def test_fit(self, noodle: Callable[..., Result], cluster: FakeCluster, tmp_path: Path) -> None:
        noodle("fusion", "index", "create", "toys")
        (tmp_path / "known.jsonl").write_text('{"text": "teddy", "answer": "bear"}\n' * 6)
        shown = noodle("fusion", "index", "fit", "toys", str(tmp_path / "known.jsonl")).stdout
        assert "87.5 % of 8 right" in shown
        assert cluster.indexes.fitted == [KnownQuery(text="teddy", answer="bear")] * 6

    def test_add_takes_a_file_or_an_entry(self, noodle: Callable[..., Result]) -> None:
        assert isinstance(noodle("fusion", "index", "add", "toys").exception, InvalidInput)


def test_sessions(noodle: Callable[..., Result], cluster: FakeCluster) -> None:
    assert noodle("fusion", "session", "open").stdout == "sAbC-123_xyz\n"
    assert json.loads(noodle("fusion", "session", "open", "--json").stdout)["idle_ms"] == 1000
    assert noodle("fusion", "session", "forget", "s1").exit_code == 0
    assert cluster.forgotten == ["s1"]


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ("", "rows.jsonl"),
        ("nonsense", "line 1"),
        ('{"name": "a", "text": "b"}\n\n[]', "line 3"),
        ('{"name": "a"}', "line 1: input"),
        ('{"name": "a", "image": "missing.png"}', "line 1: image"),
        ('{"name": "a", "image": 7}', "line 1: image"),
        ('{"name": "a", "text": "b", "colour": "red"}', "line 1: colour"),
    ],
)
def test_wrong_rows_are_named_with_their_line(tmp_path: Path, content: str, field: str) -> None:
    (tmp_path / "rows.jsonl").write_text(content)
    with pytest.raises(InvalidInput) as caught:
        read_index_rows(tmp_path / "rows.jsonl", NewEntry)
    assert [fault.field for fault in caught.value.faults] == [field]


def test_rows_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="UTF-8"):
        read_index_rows(tmp_path / "rows.jsonl", NewEntry)


def test_everything_has_help(noodle: Callable[..., Result]) -> None:
    for command in (["fuse"], ["fusion", "index", "add"], ["fusion", "session"], ["fusion", "heads"]):
        assert noodle(*command, "--help").exit_code == 0
