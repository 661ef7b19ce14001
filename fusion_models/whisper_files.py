"""A Whisper model and its tokenizer from a directory, without transformers: to import that takes seconds.

Whatever is not such a directory, damaged ones too, is left to transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

_PLAIN = {"model_type": "whisper", "activation_function": "gelu", "scale_embedding": False, "tie_word_embeddings": True}
"""What the layers here compute; whoever has other values has another network."""

_STRIDES = {"conv1": 1, "conv2": 2}
_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")

Weights = Mapping[str, Tensor]


class WhisperTokenizer:
    """Texts to tokens and back, as transformers' own does by the same file. Not safe for several threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def get_vocab(self) -> dict[str, int]:
        return self._tokenizer.get_vocab()

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(list(tokens), skip_special_tokens=False)


def read_whisper(folder: Path) -> tuple[Any, WhisperTokenizer, Any] | None:
    """Model, tokenizer and what generation never says; None where the folder has no plain Whisper, or is not whole.

    The model has the parts and names of transformers' WhisperForConditionalGeneration that are read here.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        if any(config.get(name, value) != value for name, value in _PLAIN.items()) or "model_type" not in config:
            return None
        generation = {"suppress_tokens": None, "begin_suppress_tokens": None}
        generation |= json.loads((folder / "generation_config.json").read_text())
        tokenizer = WhisperTokenizer(Tokenizer.from_str((folder / "tokenizer.json").read_text()))
        weights = {name: part.float() for name, part in load_file(folder / "model.safetensors").items()}
        return _model(SimpleNamespace(**config), weights), tokenizer, SimpleNamespace(**generation)
    except Exception:  # of many kinds; transformers reads it, or says what is wrong with it
        return None


def _model(config: Any, weights: Weights) -> Any:
    decoder = _side(weights, "model.decoder", config.decoder_layers, ("self_attn", "encoder_attn"))
    decoder.embed_tokens = SimpleNamespace(weight=weights["model.decoder.embed_tokens.weight"])
    encoder = _side(weights, "model.encoder", config.encoder_layers, ("self_attn",))
    for name, stride in _STRIDES.items():
        setattr(encoder, name, _convolution(weights, f"model.encoder.{name}", stride))
    head = _linear(weights, "model.decoder.embed_tokens")
    return SimpleNamespace(config=config, model=SimpleNamespace(encoder=encoder, decoder=decoder), proj_out=head)


def _side(weights: Weights, prefix: str, layers: int, attentions: Sequence[str]) -> Any:
    return SimpleNamespace(
        embed_positions=SimpleNamespace(weight=weights[f"{prefix}.embed_positions.weight"]),
        layer_norm=_norm(weights, f"{prefix}.layer_norm"),
        layers=[_layer(weights, f"{prefix}.layers.{layer}", attentions) for layer in range(layers)],
    )


def _layer(weights: Weights, prefix: str, attentions: Sequence[str]) -> Any:
    parts: dict[str, Any] = {name: _linear(weights, f"{prefix}.{name}") for name in ("fc1", "fc2")}
    parts["final_layer_norm"] = _norm(weights, f"{prefix}.final_layer_norm")
    for name in attentions:
        projections = {part: _linear(weights, f"{prefix}.{name}.{part}") for part in _PROJECTIONS}
        parts[name] = SimpleNamespace(**projections)
        parts[f"{name}_layer_norm"] = _norm(weights, f"{prefix}.{name}_layer_norm")
    return SimpleNamespace(**parts)


def _linear(weights: Weights, name: str) -> Any:
    outputs, inputs = weights[f"{name}.weight"].shape
    return _filled(nn.Linear(inputs, outputs, bias=f"{name}.bias" in weights, device="meta"), weights, name)


def _convolution(weights: Weights, name: str, stride: int) -> Any:
    outputs, inputs, width = weights[f"{name}.weight"].shape
    return _filled(nn.Conv1d(inputs, outputs, width, stride, padding=1, device="meta"), weights, name)


def _norm(weights: Weights, name: str) -> Any:
    return _filled(nn.LayerNorm(weights[f"{name}.weight"].shape, device="meta"), weights, name)


def _filled(layer: Any, weights: Weights, name: str) -> Any:
    """The layer with its own part of the weights. Raises KeyError, RuntimeError where they are not there or not its."""
    layer.load_state_dict({part: weights[f"{name}.{part}"] for part, _ in layer.named_parameters()}, assign=True)
    return layer.eval()
