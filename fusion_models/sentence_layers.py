"""BERT's layers, made of a loaded model's weights for as few and as large calls as possible.

Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding"; the layers are
those of Vaswani et al. 2017.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from noodle_ray.fusion_models.quantised import stacked
from noodle_ray.fusion_models.whisper_layers import join_heads, split_heads

Weights = Mapping[str, Tensor]
"""By the names that transformers' BertModel gives them."""


class States(NamedTuple):
    """(texts, tokens, width): each token's, after the last layer."""

    last_hidden_state: Tensor


class _Layer(nn.Module):
    """Tokens look at each other, then each is thought over; both are normalised together with what came in."""

    def __init__(self, weights: Weights, name: str, heads: int, epsilon: float) -> None:
        super().__init__()
        self.heads = heads
        self.project = stacked(
            [_linear(weights, f"{name}.attention.self.{part}") for part in ("query", "key", "value")]
        )
        self.out = _linear(weights, f"{name}.attention.output.dense")
        self.norm = _norm(weights, f"{name}.attention.output.LayerNorm", epsilon)
        self.widen, self.narrow = (_linear(weights, f"{name}.{part}.dense") for part in ("intermediate", "output"))
        self.last_norm = _norm(weights, f"{name}.output.LayerNorm", epsilon)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = (split_heads(part, self.heads) for part in self.project(hidden).chunk(3, dim=2))
        seen = functional.scaled_dot_product_attention(query, key, value, mask)
        hidden = self.norm(hidden + self.out(join_heads(seen)))
        return cast(Tensor, self.last_norm(hidden + self.narrow(functional.gelu(self.widen(hidden)))))


class Bert(nn.Module):
    """A BertModel's states, for texts of one segment. Equal to its own but for rounding (1e-5)."""

    def __init__(self, config: Any, weights: Weights) -> None:
        """Raises KeyError where a weight is missing."""
        super().__init__()
        self.config = config
        heads, epsilon = config.num_attention_heads, config.layer_norm_eps
        words = weights["embeddings.word_embeddings.weight"]
        self.words = nn.Embedding(words.shape[0], words.shape[1], _weight=words, _freeze=True)
        segment = weights["embeddings.token_type_embeddings.weight"][0]
        self.register_buffer("places", weights["embeddings.position_embeddings.weight"] + segment)
        self.norm = _norm(weights, "embeddings.LayerNorm", epsilon)
        names = (f"encoder.layer.{number}" for number in range(config.num_hidden_layers))
        self.layers = nn.ModuleList(_Layer(weights, name, heads, epsilon) for name in names)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> States:
        """input_ids, attention_mask: (texts, tokens)."""
        hidden = self.norm(self.words(input_ids) + cast(Tensor, self.places)[: input_ids.shape[1]])
        mask = None if bool(attention_mask.all()) else attention_mask.to(torch.bool)[:, None, None, :]
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return States(hidden)


def _linear(weights: Weights, name: str) -> nn.Linear:
    weight = weights[f"{name}.weight"]
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(weights[f"{name}.bias"])
    return layer


def _norm(weights: Weights, name: str, epsilon: float) -> nn.LayerNorm:
    weight = weights[f"{name}.weight"]
    layer = nn.LayerNorm(weight.shape[0], eps=epsilon)
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(weights[f"{name}.bias"])
    return layer


def is_plain_bert(config: Any) -> bool:
    """Whether Bert gives the same as the model of this configuration."""
    return (
        getattr(config, "model_type", "") == "bert"
        and config.hidden_act == "gelu"
        and getattr(config, "position_embedding_type", "absolute") == "absolute"
        and not getattr(config, "is_decoder", False)
    )
