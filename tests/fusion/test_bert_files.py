"""A plain BERT read without transformers: the same tokens, the same places; anything else is left to transformers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noodle_ray.errors import CorruptData
from noodle_ray.fusion_models.bert_files import FileTokenizer, read_bert
from noodle_ray.fusion_models.encoders import located
from noodle_ray.fusion_models.packs import Pack
from noodle_ray.fusion_models.pretrained import from_pretrained
from noodle_ray.fusion_models.text import SentenceModel

TEXTS = ["A cat asleep.", "", "Ünïcödé", "日本語のテキスト", "🦊 & <tags>\x00\t\n", "[MASK] [PAD] x", "word " * 900]

LOADS = """
import sys
from noodle_ray.fusion_models.packs import load_pack
from noodle_ray.fusion_models.processors import load_warm
from noodle_ray.settings import read_settings
pack = load_pack("base", read_settings().cache_dir)
for modality in ("text", "code", "vision"):
    load_warm(pack, modality, "auto", "cpu")
print("transformers" in sys.modules)
"""


@pytest.fixture(scope="module")
def folder(base: Pack) -> Path:
    return Path(located(base, "text")[1])


@pytest.fixture(scope="module")
def ours(folder: Path) -> FileTokenizer:
    read = read_bert(folder)
    assert read is not None
    return read[1]


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "text"))


def assert_same_tokens(ours: FileTokenizer, folder: Path, texts: list[str]) -> None:
    theirs = from_pretrained("AutoTokenizer", folder)
    assert ours.model_max_length == theirs.model_max_length
    wanted = theirs(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
    got = ours(texts, max_length=256)
    for name, rows in got.items():
        assert rows.tolist() == wanted[name].tolist(), name


def test_the_tokens_are_those_of_transformers(ours: FileTokenizer, folder: Path) -> None:
    assert_same_tokens(ours, folder, TEXTS)


@settings(max_examples=25, deadline=None)
@given(texts=st.lists(st.text(max_size=400), min_size=1, max_size=4))
def test_of_any_texts(texts: list[str], ours: FileTokenizer, folder: Path) -> None:
    assert_same_tokens(ours, folder, texts)


def test_the_places_are_those_of_transformers(folder: Path) -> None:
    itself = SentenceModel(from_pretrained("AutoModel", folder), from_pretrained("AutoTokenizer", folder))
    assert SentenceModel.load(folder).embed(TEXTS) == pytest.approx(itself.embed(TEXTS), abs=1e-5)


def test_what_reads_sentences_and_pictures_starts_without_transformers(base: Pack) -> None:
    done = subprocess.run([sys.executable, "-c", LOADS], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_what_is_no_plain_bert_is_left_to_transformers(copy: Path, folder: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    assert read_bert(copy) is None
    assert not np.allclose(SentenceModel.load(copy).embed(TEXTS[:1]), SentenceModel.load(folder).embed(TEXTS[:1]))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_what_is_not_whole_is_left_to_transformers(copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert read_bert(copy) is None


def test_which_says_what_is_wrong(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert read_bert(copy) is None
    with pytest.raises(CorruptData, match="damaged"):
        SentenceModel.load(copy)


def test_a_tokenizer_that_cannot_fill_up_is_left_to_transformers(copy: Path) -> None:
    text = (copy / "tokenizer.json").read_text()
    (copy / "tokenizer.json").write_text(text.replace('"[PAD]"', '"[FULL]"'))
    assert read_bert(copy) is None
