"""From a file of rows to a head: the command, what it remembers, what it refuses; and the heads that are shipped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fusion_media import picture, sound
from typer.testing import CliRunner, Result

from noodle_ray.entry.cli import fusion_group
from noodle_ray.entry.training import shipped_heads
from noodle_ray.entry.training.datasets import Photograph
from noodle_ray.errors import InvalidInput, NotFound
from noodle_ray.fusion.decoding import decode_audio, decode_image
from noodle_ray.fusion.head import Head, known_heads
from noodle_ray.fusion.training_rows import Content
from noodle_ray.fusion_models import reading_rows
from noodle_ray.fusion_models.encoders import ModalityEncoder, load_encoder
from noodle_ray.fusion_models.packs import Pack
from noodle_ray.fusion_models.reading_rows import RowReader

ROOT = Path(__file__).parents[2]
FOODS = ["apple", "bread", "cheese", "soup", "salad", "rice", "noodles", "pear", "plum", "honey", "carrot", "onion"]
TOOLS = ["hammer", "saw", "drill", "wrench", "chisel", "pliers", "file", "screwdriver", "axe", "plane", "vise", "clamp"]


def rows(folder: Path) -> Path:
    path = folder / "rows.jsonl"
    things = [("food", food) for food in FOODS] + [("tool", tool) for tool in TOOLS]
    lines = [{"label": label, "text": f"a {thing}"} for label, thing in things]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture
def state_dir(tmp_path: Path, base: Pack, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory and a cache of its own, with the real pack in it."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "packs").symlink_to(base.directory.parent)
    monkeypatch.setenv("NOODLE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NOODLE_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(fusion_group.app, arguments)


def test_a_head_is_trained_saved_listed_and_asked(
    tmp_path: Path, state_dir: Path, encoders: dict[str, ModalityEncoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = rows(tmp_path)
    told = json.loads(run("train", str(path), "--name", "things", "--json").stdout)
    assert told["labels"] == ["food", "tool"]
    assert told["trained"]["examples"] == {"fit": 16, "validation": 4, "test": 4}
    files = {file.name: file.read_bytes() for file in (state_dir / "heads").iterdir()}
    assert set(files) == {"things.json", "things.md", "things.safetensors"}
    assert b"noodle fusion train rows.jsonl --name things --split-seed 7" in files["things.md"]
    assert json.loads(run("heads", "--json").stdout)[0]["name"] == "things"
    assert "things" in run("heads").stdout

    head = Head.load(state_dir / "heads", "things")
    scores = head.scores({"text": encoders["text"].encode("a spanner to turn bolts")})
    assert head.labels[int(head.rule.posterior(scores).argmax())] == "tool"

    # Again: nothing is encoded a second time, and every byte is the same.
    monkeypatch.setattr(reading_rows, "load_encoder", lambda *args: pytest.fail("encoded again"))
    assert "100.0 %" in run("train", str(path), "--name", "things").stdout
    assert {file.name: file.read_bytes() for file in (state_dir / "heads").iterdir()} == files


def test_wrong_calls_are_refused_before_any_work(tmp_path: Path, state_dir: Path) -> None:
    path = rows(tmp_path)
    assert isinstance(run("train", str(path)).exception, InvalidInput)
    assert isinstance(run("train", str(path), "--name", "x", "--shipped", "y").exception, InvalidInput)
    assert isinstance(run("train", str(path), "--name", "Not A Name").exception, InvalidInput)
    assert isinstance(run("train", "--shipped", "no-such-head").exception, NotFound)
    path.write_text('{"label": "a"}\n{"label": "b", "image": "gone.png"}')
    caught = run("train", str(path), "--name", "x").exception
    assert "line 1" in str(caught)
    assert "line 2: image gone.png" in str(caught)
    assert not state_dir.exists()
    assert "none" in run("heads").stdout


def test_readings_are_remembered_as_they_were(tmp_path: Path, base: Pack, encoders: dict[str, ModalityEncoder]) -> None:
    (tmp_path / "a.png").write_bytes(picture(color="red"))
    (tmp_path / "a.wav").write_bytes(sound(np.sin(np.arange(4000) / 20).astype(np.float32)))
    cache = tmp_path / "cache"
    for modality, name in (("vision", "a.png"), ("audio", "a.wav")):
        content = Content(tmp_path / name, name)
        fresh, again = RowReader(base, cache).read(modality, content), RowReader(base, cache).read(modality, content)
        assert np.array_equal(fresh.features, again.features)  # type: ignore[arg-type]
        assert np.array_equal(fresh.embedding, again.embedding)  # type: ignore[arg-type]
        assert (fresh.encoder, fresh.certainty) == (again.encoder, again.certainty)
        kept = next((cache / "readings" / modality).rglob("*.safetensors"))
        kept.write_bytes(b"damaged")
        assert np.array_equal(RowReader(base, cache).read(modality, content).features, fresh.features)  # type: ignore[arg-type]


def test_features_alone_are_those_of_a_reading(
    encoders: dict[str, ModalityEncoder], photographs: dict[str, Photograph]
) -> None:
    pixels = decode_image(photographs["chelsea"].path.read_bytes())
    samples = decode_audio(sound(np.sin(np.arange(9000) / 20).astype(np.float32)))
    for modality, content, width in (("vision", pixels, 1280 + 304), ("audio", samples, 8 * 384)):
        alone = encoders[modality].features(content)  # type: ignore[attr-defined]
        assert alone.shape == (width,)
        assert np.allclose(encoders[modality].encode(content).features, alone, atol=1e-5)  # type: ignore[arg-type]


def test_what_is_shipped_is_small_documented_and_can_be_rebuilt() -> None:
    folder = shipped_heads.shipped_directory()
    files = [path for path in folder.iterdir() if path.suffix == ".safetensors"] if folder.is_dir() else []
    assert {path.stem for path in files} == set(shipped_heads.SHIPPED)
    assert sum(path.stat().st_size for path in files) <= shipped_heads.MAX_BYTES
    for path in files:
        card = path.with_suffix(".md").read_text().lower()
        for word in ("data", "licence", "split", "seed", "noodle fusion train --shipped"):
            assert word in card, f"{path.stem}'s card says nothing of {word}"


def test_the_example_trains_a_head(state_dir: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "examples" / "train_a_head.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "| text+code |" in done.stdout
    assert "This is about: files" in done.stdout
    assert known_heads(state_dir / "heads") == ["topics"]


def test_an_encoder_is_loaded_only_where_needed(tmp_path: Path, base: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def counted(pack: Pack, modality: str) -> ModalityEncoder:
        loaded.append(modality)
        return load_encoder(pack, modality)

    monkeypatch.setattr(reading_rows, "load_encoder", counted)
    reader = RowReader(base, tmp_path)
    for word in ("one", "two", "one"):
        reader.read("text", Content(word, word))
    assert loaded == ["text"]
