"""Whisper's encoder and decoder, made of a loaded model's weights for as few and as large calls as possible.

Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision"; the layers are those of Vaswani et
al. 2017 with the normalisation before each block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from noodle_ray.fusion_models.quantised import stacked

KeyValue = tuple[Tensor, Tensor]
"""(1, heads, states, width of a head) each."""


def split_heads(states: Tensor, heads: int) -> Tensor:
    """(rows, length, width) → (rows, heads, length, width of a head)."""
    rows, length, width = states.shape
    return states.view(rows, length, heads, width // heads).transpose(1, 2)


def join_heads(states: Tensor) -> Tensor:
    return states.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """A block in which tokens (or states) look at each other."""

    def __init__(self, attention: Any, norm: nn.Module, heads: int) -> None:
        super().__init__()
        self.heads, self.norm, self.out = heads, norm, attention.out_proj
        self.project = stacked([attention.q_proj, attention.k_proj, attention.v_proj])

    def forward(
        self, hidden: Tensor, past: KeyValue | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, KeyValue]:
        """The block's output, and keys and values of everything so far. `mask`: True where a row may look."""
        query, key, value = (split_heads(part, self.heads) for part in self.project(self.norm(hidden)).chunk(3, dim=2))
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        seen = functional.scaled_dot_product_attention(query, key, value, mask)
        return self.out(join_heads(seen)), (key, value)


class CrossAttention(nn.Module):
    """A block in which tokens look at what was heard."""

    def __init__(self, attention: Any, norm: nn.Module, heads: int) -> None:
        super().__init__()
        self.heads, self.norm = heads, norm
        self.query, self.out = attention.q_proj, attention.out_proj

    def forward(self, hidden: Tensor, heard: KeyValue, weights: Tensor) -> Tensor:
        """`weights`: (states,), added to how much each state is looked at."""
        query = split_heads(self.query(self.norm(hidden)), self.heads)
        seen = functional.scaled_dot_product_attention(query, *heard, weights[None, None, None])
        return cast(Tensor, self.out(join_heads(seen)))


class Feedforward(nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.norm, self.widen, self.narrow = layer.final_layer_norm, layer.fc1, layer.fc2

    def forward(self, hidden: Tensor) -> Tensor:
        return cast(Tensor, self.narrow(functional.gelu(self.widen(self.norm(hidden)))))


class Convolution(nn.Module):
    """A one-dimensional convolution of width 3 as a linear layer over neighbouring frames, so that it quantises."""

    def __init__(self, convolution: Any) -> None:
        super().__init__()
        self.stride = convolution.stride[0]
        outputs, inputs, width = convolution.weight.shape
        self.linear = nn.Linear(inputs * width, outputs)
        with torch.no_grad():
            self.linear.weight.copy_(convolution.weight.transpose(1, 2).reshape(outputs, -1))
            self.linear.bias.copy_(convolution.bias)

    def forward(self, frames: Tensor) -> Tensor:
        """(frames, inputs) → (frames / stride, outputs)."""
        padded = functional.pad(frames, (0, 0, 1, 1))
        count, inputs = frames.shape
        windows = padded.as_strided((count // self.stride, 3 * inputs), (self.stride * inputs, 1))
        return functional.gelu(self.linear(windows))


class Encoder(nn.Module):
    """Log-mel features to states: two frames become one."""

    def __init__(self, encoder: Any, heads: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = Convolution(encoder.conv1), Convolution(encoder.conv2)
        self.register_buffer("positions", encoder.embed_positions.weight.detach())
        self.attentions = nn.ModuleList(
            SelfAttention(layer.self_attn, layer.self_attn_layer_norm, heads) for layer in encoder.layers
        )
        self.feedforwards = nn.ModuleList(Feedforward(layer) for layer in encoder.layers)
        self.norm = encoder.layer_norm

    def forward(self, frames: Tensor) -> Tensor:
        """(frames, mel bins) → (1, frames / 2, width)."""
        hidden = self.conv2(self.conv1(frames))[None]
        hidden = hidden + cast(Tensor, self.positions)[: hidden.shape[1]]
        for attention, feedforward in zip(self.attentions, self.feedforwards, strict=True):
            hidden = hidden + attention(hidden)[0]
            hidden = hidden + feedforward(hidden)
        return cast(Tensor, self.norm(hidden))


class Decoder(nn.Module):
    """Tokens to states, with an eye on what was heard."""

    def __init__(self, decoder: Any, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.register_buffer("embeddings", decoder.embed_tokens.weight.detach())
        self.register_buffer("positions", decoder.embed_positions.weight.detach())
        layers = decoder.layers
        self.attentions = nn.ModuleList(
            SelfAttention(layer.self_attn, layer.self_attn_layer_norm, heads) for layer in layers
        )
        self.hearings = nn.ModuleList(
            CrossAttention(layer.encoder_attn, layer.encoder_attn_layer_norm, heads) for layer in layers
        )
        self.feedforwards = nn.ModuleList(Feedforward(layer) for layer in layers)
        projections = [part for layer in layers for part in (layer.encoder_attn.k_proj, layer.encoder_attn.v_proj)]
        self.remember = stacked(projections)
        self.norm = decoder.layer_norm

    @property
    def longest(self) -> int:
        return int(cast(Tensor, self.positions).shape[0])

    def memories(self, states: Tensor) -> list[KeyValue]:
        """Each layer's keys and values of encoder states (1, states, width)."""
        parts = [split_heads(part, self.heads) for part in self.remember(states).chunk(2 * len(self.hearings), dim=2)]
        return list(zip(parts[::2], parts[1::2], strict=True))

    def forward(
        self,
        tokens: Tensor,
        places: Tensor,
        heard: Sequence[KeyValue],
        weights: Tensor,
        past: list[KeyValue],
        mask: Tensor | None = None,
    ) -> Tensor:
        """States (tokens, width) of tokens at places. `past` holds keys and values of earlier ones, and grows."""
        hidden = (cast(Tensor, self.embeddings)[tokens] + cast(Tensor, self.positions)[places])[None]
        for index, attention in enumerate(self.attentions):
            update, known = attention(hidden, past[index] if index < len(past) else None, mask)
            past[index : index + 1] = [known]
            hidden = hidden + update
            hidden = hidden + self.hearings[index](hidden, heard[index], weights)
            hidden = hidden + self.feedforwards[index](hidden)
        return cast(Tensor, self.norm(hidden))[0]
