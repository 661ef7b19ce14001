"""Runs a Whisper model on short clips: what was said, and how likely each of some given sentences is.

Whisper was trained on windows of 30 s, and encoding a padded window costs the same for a clip of one second as for
thirty. Here only the clip and a second of silence behind it are encoded, and the encoder states of a silent window,
computed once, stand for the rest. (Without them the decoder, which has never seen a short window, runs away.)
Model and decoding: Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationConfig, PreTrainedTokenizerBase, WhisperForConditionalGeneration
from transformers.audio_utils import mel_filter_bank

from noodle_ray.errors import CorruptData

SAMPLE_RATE = 16_000
FFT, HOP = 400, 160
SAMPLES_PER_STATE = 2 * HOP
MARGIN_S = 1.0
"""Silence encoded behind the clip: the decoder hears the end of speech in it."""
TOKENS_AT_LEAST, TOKENS_PER_S = 8, 6
"""Bound of a transcript's length: nobody speaks faster, and a decoder that runs away stops here."""

LAST_ENGLISH_TOKEN = 50_256
"""The end of text in English-only models. Multilingual ones have one more, and are told the language: English."""

Samples = npt.NDArray[np.float32]
Memory = list[tuple[Tensor, Tensor]]
"""Keys and values of every decoder layer over the encoder's states: (1, heads, states, width of a head) each."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said: the text, its tokens, and the log-probability of all of them together."""

    text: str
    tokens: tuple[int, ...]
    log_likelihood: float

    @property
    def certainty(self) -> float:
        """The geometric mean of the tokens' probabilities, in 0..1."""
        return float(np.exp(self.log_likelihood / (len(self.tokens) + 1)))


class Whisper:
    """A Whisper model with its tokenizer. Not safe for use by several threads at once."""

    def __init__(
        self, model: WhisperForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig
    ) -> None:
        self._encoder, self._decoder, self._head = model.model.encoder, model.model.decoder, model.proj_out
        self._tokenizer = tokenizer
        self._heads = model.config.decoder_attention_heads
        self._states = model.config.max_source_positions
        self._mel = torch.from_numpy(_mel_filters(model.config.num_mel_bins))
        self._window = torch.hann_window(FFT)
        self._prompt, self._end = _prompt(tokenizer)
        self._never = _ban(generation.suppress_tokens or [], model.config.vocab_size, first_special=self._prompt[0])
        self._never[self._end] = 0.0
        self._first = self._never + _ban(generation.begin_suppress_tokens or [], model.config.vocab_size)
        self.silence = self._remember(self._encode(np.zeros(self._states * SAMPLES_PER_STATE, np.float32)))

    def listen(self, samples: Samples) -> Memory:
        """Encodes a clip (16 kHz, at most the model's window) into what the decoder attends to."""
        wanted = min(len(samples) + int(MARGIN_S * SAMPLE_RATE), self._states * SAMPLES_PER_STATE)
        length = -(-wanted // SAMPLES_PER_STATE) * SAMPLES_PER_STATE
        padded = np.zeros(length, np.float32)
        padded[: min(len(samples), length)] = samples[:length]
        own = self._remember(self._encode(padded))
        return [
            (_continued(key, rest_key), _continued(value, rest_value))
            for (key, value), (rest_key, rest_value) in zip(own, self.silence, strict=True)
        ]

    def transcribe(self, memory: Memory, seconds: float) -> Transcript:
        """Greedy decoding of a clip of that many seconds, without timestamps."""
        cache: list[tuple[Tensor, Tensor]] = []
        tokens: list[int] = []
        fed, total, ban = list(self._prompt), 0.0, self._first
        limit = min(int(TOKENS_AT_LEAST + TOKENS_PER_S * seconds), self._decoder.max_target_positions - len(fed))
        for _ in range(limit):
            logits = self._head(self._decode(torch.tensor([fed]), memory, cache)[0, -1:])[0]
            best = int((logits + ban).argmax())
            total += float(logits[best] - logits.logsumexp(0))
            if best == self._end:
                break
            tokens.append(best)
            fed, ban = [best], self._never
        return Transcript(self._tokenizer.decode(tokens).strip(), tuple(tokens), total)

    def tokens_of(self, sentence: str) -> tuple[int, ...]:
        """The tokens by which the decoder would write the sentence."""
        tokens = self._tokenizer.encode(" " + sentence.strip(), add_special_tokens=False)
        return tuple(tokens[: self._decoder.max_target_positions - len(self._prompt) - 1])

    def log_likelihoods(self, memory: Memory, rows: Sequence[tuple[int, ...]]) -> npt.NDArray[np.float64]:
        """Log-probability of each row of tokens (and of the end after it), given what was heard. One pass for all."""
        if not rows:
            return np.zeros(0)
        width = max(map(len, rows)) + 1
        prompt = len(self._prompt)
        fed = torch.tensor([[*self._prompt, *row, *[self._end] * (width - 1 - len(row))] for row in rows])
        wanted = torch.tensor([[*row, *[self._end] * (width - len(row))] for row in rows])
        real = torch.arange(width)[None] <= torch.tensor([[len(row)] for row in rows])
        states = self._decode(fed, memory, [])[:, prompt - 1 :][real]
        logits = self._head(states)
        chosen = logits.gather(1, wanted[real][:, None])[:, 0] - logits.logsumexp(1)
        row_of = torch.arange(len(rows))[:, None].expand(-1, width)[real]
        return torch.zeros(len(rows)).index_add_(0, row_of, chosen).double().numpy()

    def _encode(self, samples: Samples) -> Tensor:
        features = self._log_mel(torch.from_numpy(samples))
        hidden = functional.gelu(self._encoder.conv1(features[None]))
        hidden = functional.gelu(self._encoder.conv2(hidden)).transpose(1, 2)
        hidden = hidden + self._encoder.embed_positions.weight[: hidden.shape[1]]
        for layer in self._encoder.layers:
            hidden = layer(hidden, None)
        states: Tensor = self._encoder.layer_norm(hidden)
        return states

    def _log_mel(self, samples: Tensor) -> Tensor:
        spectrum = torch.stft(samples, FFT, HOP, window=self._window, return_complex=True)[:, :-1].abs() ** 2
        loudness = (self._mel @ spectrum).clamp(min=1e-10).log10()
        return (loudness.maximum(loudness.max() - 8.0) + 4.0) / 4.0

    def _remember(self, states: Tensor) -> Memory:
        return [
            (self._split(layer.encoder_attn.k_proj(states)), self._split(layer.encoder_attn.v_proj(states)))
            for layer in self._decoder.layers
        ]

    def _split(self, states: Tensor) -> Tensor:
        rows, length, width = states.shape
        return states.view(rows, length, self._heads, width // self._heads).transpose(1, 2)

    def _decode(self, tokens: Tensor, memory: Memory, cache: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Decoder states (rows, tokens, width) of the given tokens; `cache` holds the earlier ones and grows."""
        past = cache[0][0].shape[2] if cache else 0
        hidden = self._decoder.embed_tokens(tokens)
        hidden = hidden + self._decoder.embed_positions.weight[past : past + tokens.shape[1]]
        for index, layer in enumerate(self._decoder.layers):
            hidden = hidden + self._attend_to_itself(layer, hidden, cache, index)
            hidden = hidden + self._attend_to_clip(layer, hidden, memory[index])
            hidden = hidden + layer.fc2(functional.gelu(layer.fc1(layer.final_layer_norm(hidden))))
        states: Tensor = self._decoder.layer_norm(hidden)
        return states

    def _attend_to_itself(self, layer: Any, hidden: Tensor, cache: list[tuple[Tensor, Tensor]], index: int) -> Tensor:
        attention, hidden = layer.self_attn, layer.self_attn_layer_norm(hidden)
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        query, key, value = (self._split(projection(hidden)) for projection in projections)
        if index < len(cache):
            key, value = torch.cat([cache[index][0], key], 2), torch.cat([cache[index][1], value], 2)
            cache[index] = (key, value)
        else:
            cache.append((key, value))
        # With a cache there is one new token, which may look at everything before it.
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=query.shape[2] == key.shape[2])
        return _joined(attention.out_proj, seen)

    def _attend_to_clip(self, layer: Any, hidden: Tensor, memory: tuple[Tensor, Tensor]) -> Tensor:
        rows, length, width = hidden.shape
        attention = layer.encoder_attn
        # All rows look at the same clip without a mask, so they are one long row: the clip is not copied per row.
        query = attention.q_proj(layer.encoder_attn_layer_norm(hidden)).reshape(1, rows * length, width)
        seen = functional.scaled_dot_product_attention(self._split(query), *memory)
        return _joined(attention.out_proj, seen).reshape(rows, length, width)


def _continued(own: Tensor, silence: Tensor) -> Tensor:
    """The clip's own states, then the silent window's from there on."""
    return torch.cat([own, silence[:, :, own.shape[2] :]], 2)


def _joined(projection: nn.Module, heads: Tensor) -> Tensor:
    joined: Tensor = projection(heads.transpose(1, 2).flatten(2))
    return joined


def _ban(tokens: Sequence[int], vocabulary: int, first_special: int | None = None) -> Tensor:
    """What is added to the logits so that these tokens (and all special ones) are never chosen."""
    ban = torch.zeros(vocabulary)
    ban[[token for token in tokens if 0 <= token < vocabulary]] = -torch.inf
    if first_special is not None:
        ban[first_special:] = -torch.inf
    return ban


def _prompt(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], int]:
    """The tokens before a transcript without timestamps, and the one after it."""
    vocabulary = tokenizer.get_vocab()
    names = ["<|startoftranscript|>", "<|notimestamps|>"]
    if vocabulary.get("<|endoftext|>", 0) > LAST_ENGLISH_TOKEN:
        names[1:1] = ["<|en|>", "<|transcribe|>"]
    missing = [name for name in [*names, "<|endoftext|>"] if name not in vocabulary]
    if missing:
        raise CorruptData(f"the tokenizer is not Whisper's: it lacks {', '.join(missing)}")
    return tuple(vocabulary[name] for name in names), vocabulary["<|endoftext|>"]


def _mel_filters(bins: int) -> npt.NDArray[np.float32]:
    filters = mel_filter_bank(1 + FFT // 2, bins, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, norm="slaney", mel_scale="slaney")
    return np.asarray(filters.T, np.float32)
