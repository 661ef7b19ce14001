"""A Whisper read without transformers: the same weights, tokens and filters; anything else is left to transformers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.audio_utils import mel_filter_bank

from noodle_ray.errors import CorruptData
from noodle_ray.fusion_models.audio import _with_transformers, load_whisper
from noodle_ray.fusion_models.log_mel import FFT, SAMPLE_RATE, mel_filters
from noodle_ray.fusion_models.packs import Pack
from noodle_ray.fusion_models.whisper import Whisper
from noodle_ray.fusion_models.whisper_files import read_whisper

TEXTS = (" Press one.", "", " Ünïcödé", " 日本語のテキスト", " 🦊 & <tags>\x00\t\n", " <|endoftext|> x", " word" * 900)

LOADS = """
import sys
from noodle_ray.fusion_models.packs import load_pack
from noodle_ray.fusion_models.processors import load_warm
from noodle_ray.settings import read_settings
load_warm(load_pack("base", read_settings().cache_dir), "audio", "auto", "cpu")
print("transformers" in sys.modules)
"""


@pytest.fixture(scope="module")
def folder(base: Pack) -> Path:
    return base.directory / "audio"


@pytest.fixture(scope="module")
def ours(folder: Path) -> tuple[Any, Any, Any]:
    read = read_whisper(folder)
    assert read is not None
    return read


@pytest.fixture(scope="module")
def theirs(folder: Path) -> tuple[Any, Any, Any]:
    return _with_transformers(folder, {"local_files_only": True})


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "audio"))


def assert_same_tokens(ours: Any, theirs: Any, text: str) -> None:
    tokens = theirs.encode(text, add_special_tokens=False)
    assert ours.encode(text, add_special_tokens=False) == tokens
    assert ours.decode(tokens) == theirs.decode(tokens)


def test_the_tokens_are_those_of_transformers(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> None:
    assert ours[1].get_vocab() == theirs[1].get_vocab()
    for text in TEXTS:
        assert_same_tokens(ours[1], theirs[1], text)


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=400))
def test_of_any_text(ours: tuple[Any, ...], theirs: tuple[Any, ...], text: str) -> None:
    assert_same_tokens(ours[1], theirs[1], text)


def test_what_is_never_said_is_the_same(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> None:
    for name in ("suppress_tokens", "begin_suppress_tokens"):
        assert getattr(ours[2], name) == getattr(theirs[2], name)


def test_it_hears_exactly_the_same(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> None:
    samples = np.random.default_rng(1).normal(0, 0.1, 2 * SAMPLE_RATE).astype(np.float32)
    with torch.inference_mode():
        heard = [one.transcribe(one.listen(samples), 2.0) for one in (Whisper(*ours), Whisper(*theirs))]
    assert heard[0] == heard[1]
    assert np.array_equal(heard[0].opening, heard[1].opening)


@pytest.mark.parametrize("bins", [80, 128])
def test_the_filters_are_those_of_transformers(bins: int) -> None:
    wanted = mel_filter_bank(1 + FFT // 2, bins, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, norm="slaney", mel_scale="slaney")
    assert mel_filters(bins) == pytest.approx(wanted, abs=1e-12)


def test_what_reads_speech_starts_without_transformers(base: Pack) -> None:
    done = subprocess.run([sys.executable, "-c", LOADS], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    "other", [{"activation_function": "relu"}, {"scale_embedding": True}, {"tie_word_embeddings": False}]
)
def test_what_is_no_plain_whisper_is_left_to_transformers(copy: Path, other: dict[str, Any]) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **other}))
    assert read_whisper(copy) is None


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json", "model.safetensors"])
def test_what_is_not_whole_is_left_to_transformers(copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert read_whisper(copy) is None


def test_a_missing_layer_is_left_to_transformers(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "decoder_layers": 5}))
    assert read_whisper(copy) is None


def test_which_says_what_is_wrong(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CorruptData, match="damaged"):
        load_whisper(copy, local_files_only=True)
