"""A pack whose encoders come from directories: tiny random models, saved as a hub would have them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    GenerationConfig,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from noodle_ray.errors import CorruptData, Unavailable
from noodle_ray.fusion.calibration import UNFITTED
from noodle_ray.fusion.fusing import evidence, joint_embedding
from noodle_ray.fusion_models.encoders import load_anchor, load_encoder
from noodle_ray.fusion_models.packs import Pack, load_pack

WORDS = ["[PAD]", "[UNK]", "a", "cat", "dog", "the", "ready", "not", "def", "silence"]
WHISPER = [f"<{n}>" for n in range(20)] + ["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"]


def tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    plain = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=words[1]))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=plain, pad_token=words[0], unk_token=words[1], model_max_length=16)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    for name in ("bert", "codebert"):
        BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=16, **small)).save_pretrained(folder / name)
        tokenizer(WORDS).save_pretrained(folder / name)
    towers = {**small, "projection_dim": 8}
    text = {**towers, "vocab_size": len(WORDS), "max_position_embeddings": 16, "eos_token_id": 5, "bos_token_id": 4}
    clip = CLIPConfig(text_config=text, vision_config={**towers, "image_size": 32, "patch_size": 8}, projection_dim=8)
    CLIPModel(clip).save_pretrained(folder / "clip")
    tokenizer(WORDS).save_pretrained(folder / "clip")
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 32},
        "crop_size": {"height": 32, "width": 32},
    }
    (folder / "clip" / "preprocessor_config.json").write_text(json.dumps(processor))
    layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes = {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "vocab_size": len(WHISPER)}
    tokens = {"pad_token_id": 20, "bos_token_id": 20, "eos_token_id": 20, "decoder_start_token_id": 21}
    config = WhisperConfig(**layers, **sizes, **tokens, max_source_positions=100, max_target_positions=32)
    WhisperForConditionalGeneration(config).save_pretrained(folder / "whisper")
    tokenizer(WHISPER).save_pretrained(folder / "whisper")
    GenerationConfig(suppress_tokens=[1], begin_suppress_tokens=[20]).save_pretrained(folder / "whisper")
    return folder


def pack_of(cache: Path, name: str, sources: Path, **encoders: tuple[str, str]) -> Pack:
    folder = cache / "packs" / name
    folder.mkdir(parents=True)
    lines = [
        f'[encoders.{modality}]\nkind = "{kind}"\nsource = "{sources / source}"\n'
        for modality, (kind, source) in encoders.items()
    ]
    (folder / "pack.toml").write_text("\n".join(lines))
    return load_pack(name, cache)


def test_sentence_encoders_and_speech(tmp_path: Path, sources: Path) -> None:
    pack = pack_of(
        tmp_path,
        "mine",
        sources,
        text=("sentence", "bert"),
        code=("sentence", "bert"),
        audio=("whisper", "whisper"),
    )
    assert pack.modalities == ("text", "audio", "code")
    text, code, audio = (load_encoder(pack, modality) for modality in ("text", "code", "audio"))
    assert text.encode("a cat").encoder == "mine/bert"
    assert np.array_equal(text.encode("a cat").embedding, code.encode("a cat").embedding)  # type: ignore[arg-type]
    heard = audio.encode(np.zeros(8000, np.float32), ("a cat", "the dog"))
    assert heard.embedding is not None
    assert heard.embedding.shape == (16,)
    assert heard.scores is not None
    assert evidence("audio", heard, load_anchor(pack).embed(("a cat", "the dog")), UNFITTED) is not None


def test_two_towers_share_the_space_of_their_own_texts(tmp_path: Path, sources: Path) -> None:
    pack = pack_of(tmp_path, "clip", sources, text=("two-towers", "clip"), vision=("two-towers", "clip"))
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    seen = load_encoder(pack, "vision").encode(pixels, ("a cat", "the dog"))
    said = load_encoder(pack, "text").encode("a cat")
    assert seen.embedding is not None
    assert seen.embedding.shape == said.embedding.shape == (8,)  # type: ignore[union-attr]
    assert seen.scores is not None
    assert seen.scores.shape == (2,)
    assert joint_embedding({"vision": seen, "text": said}) is not None
    alone = load_encoder(pack, "vision").encode(pixels)
    assert alone.scores is None
    assert alone.seen == "a picture of 50 x 40 pixels"
    assert load_anchor(pack).embed(()).shape == (0, 8)


def test_encoders_with_spaces_of_their_own_score_candidates_themselves(tmp_path: Path, sources: Path) -> None:
    pack = pack_of(
        tmp_path,
        "mixed",
        sources,
        text=("sentence", "bert"),
        code=("sentence", "codebert"),
        vision=("two-towers", "clip"),
    )
    candidates = ("a cat", "the dog")
    code = load_encoder(pack, "code").encode("def cat", candidates)
    seen = load_encoder(pack, "vision").encode(np.zeros((32, 32, 3), np.uint8), candidates)
    for reading in (code, seen):
        assert reading.embedding is None
        assert reading.scores is not None
        assert reading.scores.shape == (2,)
    assert load_encoder(pack, "code").encode("def cat").scores is None


def test_a_source_that_is_not_there_is_unavailable(tmp_path: Path, sources: Path) -> None:
    pack = pack_of(tmp_path, "gone", sources, text=("sentence", "nothing-here"))
    with pytest.raises(Unavailable, match="nothing-here"):
        load_encoder(pack, "text")


def test_damaged_weights_are_corrupt_data(tmp_path: Path, sources: Path) -> None:
    damaged = tmp_path / "bert"
    damaged.mkdir()
    for path in (sources / "bert").iterdir():
        (damaged / path.name).write_bytes(path.read_bytes())
    (damaged / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0garbage!")
    pack = pack_of(tmp_path, "broken", tmp_path, text=("sentence", "bert"))
    with pytest.raises(CorruptData, match="damaged"):
        load_encoder(pack, "text")


def test_a_tokenizer_that_is_not_whispers_is_corrupt_data(tmp_path: Path, sources: Path) -> None:
    wrong = tmp_path / "whisper"
    wrong.mkdir()
    for path in (sources / "whisper").iterdir():
        (wrong / path.name).write_bytes(path.read_bytes())
    tokenizer(WORDS).save_pretrained(wrong)
    pack = pack_of(tmp_path, "wrong", tmp_path, text=("sentence", "bert"), audio=("whisper", "whisper"))
    (tmp_path / "bert").symlink_to(sources / "bert")
    with pytest.raises(CorruptData, match="not Whisper's"):
        load_encoder(pack, "audio")
