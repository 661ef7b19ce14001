"""BERT's layers, made of a loaded model's weights for as few and as large calls as possible.

Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding"; the layers are
those of Vaswani et al. 2017.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_outputs import BaseModelOutput

from noodle_ray.fusion_models.quantised import stacked
from noodle_ray.fusion_models.whisper_layers import join_heads, split_heads


class _Layer(nn.Module):
    """Tokens look at each other, then each is thought over; both are normalised together with what came in."""

    def __init__(self, layer: Any, heads: int) -> None:
        super().__init__()
        attention = layer.attention.self
        self.heads = heads
        self.project = stacked([attention.query, attention.key, attention.value])
        self.out, self.norm = layer.attention.output.dense, layer.attention.output.LayerNorm
        self.widen, self.narrow = layer.intermediate.dense, layer.output.dense
        self.last_norm = layer.output.LayerNorm

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = (split_heads(part, self.heads) for part in self.project(hidden).chunk(3, dim=2))
        seen = functional.scaled_dot_product_attention(query, key, value, mask)
        hidden = self.norm(hidden + self.out(join_heads(seen)))
        return cast(Tensor, self.last_norm(hidden + self.narrow(functional.gelu(self.widen(hidden)))))


class Bert(nn.Module):
    """A BertModel's states, for texts of one segment. Equal to its own but for rounding (1e-5)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        embeddings, self.config = model.embeddings, model.config
        self.words = embeddings.word_embeddings
        places = embeddings.position_embeddings.weight + embeddings.token_type_embeddings.weight[0]
        self.register_buffer("places", places.detach())
        self.norm = embeddings.LayerNorm
        self.layers = nn.ModuleList(_Layer(layer, self.config.num_attention_heads) for layer in model.encoder.layer)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Tensor) -> BaseModelOutput:
        """input_ids, attention_mask: (texts, tokens)."""
        hidden = self.norm(self.words(input_ids) + cast(Tensor, self.places)[: input_ids.shape[1]])
        mask = None if bool(attention_mask.all()) else attention_mask.to(torch.bool)[:, None, None, :]
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return BaseModelOutput(last_hidden_state=hidden)


def is_plain_bert(model: Any) -> bool:
    """Whether Bert gives the same as the model."""
    config = model.config
    return (
        config.model_type == "bert"
        and config.hidden_act == "gelu"
        and getattr(config, "position_embedding_type", "absolute") == "absolute"
        and not config.is_decoder
    )
