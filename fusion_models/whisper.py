"""Runs a Whisper model on short clips: what was said, and how likely each of some given sentences is.

Whisper was trained on windows of 30 s, and encoding a padded window costs the same for a clip of one second as for
thirty. Here only the clip and some silence behind it are encoded, and the encoder states of a window that falls silent
after a second, computed once, stand for the rest. (Without them the decoder, which has never seen a short window, runs
away.) Beyond the next full block they are merged: one mean state that counts as often as those it stands for.
Model and decoding: Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from noodle_ray.errors import CorruptData
from noodle_ray.fusion_models.compiled_decoder import CompiledDecoder
from noodle_ray.fusion_models.log_mel import HOP, SAMPLE_RATE, LogMel
from noodle_ray.fusion_models.quantised import FP32, INT8, check_precision, in_precision, number_type
from noodle_ray.fusion_models.token_tree import TokenTree
from noodle_ray.fusion_models.whisper_layers import Decoder, Encoder, KeyValue

SAMPLES_PER_STATE = 2 * HOP
MARGIN_S = 0.3
"""Silence encoded behind the clip: the decoder hears the end of speech in it."""
HUM_S, HUM_PITCH_HZ, SYLLABLES_HZ = 1.0, 120.0, 4.0
"""What stands for speech before the silence that is computed once. States of a window without any sound are others:
after them the decoder runs away more often, or needs three times the margin."""
BLOCK = 50
"""States of silence that are merged into one."""
TOKENS_AT_LEAST, TOKENS_PER_S = 8, 6
"""Bound of a transcript's length: nobody speaks faster, and a decoder that runs away stops here."""
COMMON_TOKENS = 8192
"""Tokens over which the probabilities of given sentences are normalised: the vocabulary begins with the commonest."""

LAST_ENGLISH_TOKEN = 50_256
"""The end of text in English-only models. Multilingual ones have one more, and are told the language: English."""

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Memory:
    """What the decoder attends to.

    states: (states, width) the encoder's, of the clip alone.
    layers: each decoder layer's keys and values, of the clip and the silence after it.
    counts: (keys,) the logarithm of how many states each key stands for.
    """

    states: Tensor
    layers: list[KeyValue]
    counts: Tensor


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said: the text, its tokens, and the log-probability of all of them together.

    opening: (vocabulary,) the log-probability of each token to be the first.
    """

    text: str
    tokens: tuple[int, ...]
    log_likelihood: float
    opening: npt.NDArray[np.float32] = field(repr=False, compare=False)

    @property
    def certainty(self) -> float:
        """The geometric mean of the tokens' probabilities, in 0..1."""
        return float(np.exp(self.log_likelihood / (len(self.tokens) + 1)))


class Whisper:
    """A Whisper model with its tokenizer. Not safe for use by several threads at once.

    model, tokenizer, generation: of transformers' kinds WhisperForConditionalGeneration, AutoTokenizer and
    GenerationConfig, or what `whisper_files` reads, which has as much of them as is wanted here.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        generation: Any,
        precision: str = FP32,
        device: str = "cpu",
    ) -> None:
        check_precision(precision, device)
        config = model.config
        self._tokenizer, self._device = tokenizer, torch.device(device)
        self._type = number_type(precision, device)
        self._window = config.max_source_positions
        self._prompt, self._end = _prompt(tokenizer)
        self._never = _ban(generation.suppress_tokens or [], config.vocab_size, first_special=self._prompt[0])
        self._never[self._end] = 0.0
        self._first = self._never + _ban(generation.begin_suppress_tokens or [], config.vocab_size)
        self._never, self._first = self._never.to(device), self._first.to(device)
        self._log_mel = LogMel(config.num_mel_bins).to(device)
        inner = model.model
        encoder = Encoder(inner.encoder, config.encoder_attention_heads)
        self._encoder = cast(Encoder, in_precision(encoder, precision, device))
        decoder = Decoder(inner.decoder, config.decoder_attention_heads)
        self._compiled = CompiledDecoder(decoder, model.proj_out) if precision == INT8 else None
        self._decoder = cast(Decoder, in_precision(decoder, precision, device))
        self._head = cast(_Head, in_precision(_Head(model.proj_out, self._end), precision, device))
        self._silence = self._decoder.memories(self._encode(_hum_and_silence(self._window * SAMPLES_PER_STATE)))
        self._blocks = [(_merged(key), _merged(value)) for key, value in self._silence]
        self.silence = self._memory(torch.zeros(0, config.d_model), [])

    def listen(self, samples: Samples) -> Memory:
        """Encodes a clip (16 kHz, at most the model's window) into what the decoder attends to."""
        wanted = min(len(samples) + int(MARGIN_S * SAMPLE_RATE), self._window * SAMPLES_PER_STATE)
        length = -(-wanted // SAMPLES_PER_STATE) * SAMPLES_PER_STATE
        padded = np.zeros(length, np.float32)
        padded[: min(len(samples), length)] = samples[:length]
        states = self._encode(padded)
        spoken = min(-(-len(samples) // SAMPLES_PER_STATE), states.shape[1])
        return self._memory(states[0, :spoken], self._decoder.memories(states))

    def transcribe(self, memory: Memory, seconds: float) -> Transcript:
        """Greedy decoding of a clip of that many seconds, without timestamps."""
        limit = min(int(TOKENS_AT_LEAST + TOKENS_PER_S * seconds), self._decoder.longest - len(self._prompt))
        after = self._by_torch(memory) if self._compiled is None else self._by_machine_code(memory, limit)
        logits, ban = after(self._prompt), self._first
        opening = (logits - logits.logsumexp(0)).cpu().numpy()
        tokens: list[int] = []
        total = 0.0
        for _ in range(limit):
            best = int((logits + ban).argmax())
            total += float(logits[best] - logits.logsumexp(0))
            if best == self._end:
                break
            tokens.append(best)
            if len(tokens) < limit:
                logits, ban = after([best]), self._never
        return Transcript(self._tokenizer.decode(tokens).strip(), tuple(tokens), total, opening)

    def _by_torch(self, memory: Memory) -> Callable[[Sequence[int]], Tensor]:
        """Gives the logits after tokens, each call's behind those of the calls before."""
        cache: list[KeyValue] = []

        def after(tokens: Sequence[int]) -> Tensor:
            place = cache[0][0].shape[2] if cache else 0
            places = torch.arange(place, place + len(tokens), device=self._device)
            causal = torch.ones(len(tokens), place + len(tokens), dtype=torch.bool, device=self._device).tril(place)
            inputs = torch.tensor(tokens, device=self._device)
            states = self._decoder(inputs, places, memory.layers, memory.counts, cache, causal)
            return cast(Tensor, self._head.full(states[-1:])[0].float())

        return after

    def _by_machine_code(self, memory: Memory, limit: int) -> Callable[[Sequence[int]], Tensor]:
        decoder = cast(CompiledDecoder, self._compiled)
        progress = decoder.begin(memory.layers, memory.counts, len(self._prompt) + limit)
        return lambda tokens: torch.from_numpy(decoder.logits(progress, tokens))

    def tokens_of(self, sentence: str) -> tuple[int, ...]:
        """The tokens by which the decoder would write the sentence."""
        tokens = self._tokenizer.encode(" " + sentence.strip(), add_special_tokens=False)
        return tuple(tokens[: self._decoder.longest - len(self._prompt) - 1])

    def log_likelihoods(self, memory: Memory, rows: Sequence[tuple[int, ...]]) -> npt.NDArray[np.float64]:
        """Log-probability of each row of tokens (and of the end after it), given what was heard. One pass for all.

        Each token's probability is among the COMMON_TOKENS and itself.
        """
        if not rows:
            return np.zeros(0)
        tree = TokenTree.of(rows, self._prompt, self._end)
        tokens, places, seen, parents, wanted, owners = (
            torch.from_numpy(part).to(self._device)
            for part in (tree.tokens, tree.places, tree.seen, tree.parents, tree.wanted, tree.rows)
        )
        states = self._decoder(tokens, places, memory.layers, memory.counts, [], seen)
        chosen = self._head.log_likelihoods(states, parents, wanted)
        return torch.zeros(len(rows), device=self._device).index_add_(0, owners, chosen).double().cpu().numpy()

    def _encode(self, samples: Samples) -> Tensor:
        features = self._log_mel(torch.from_numpy(samples).to(self._device))
        return cast(Tensor, self._encoder(features.to(self._type)))

    def _memory(self, states: Tensor, own: list[KeyValue]) -> Memory:
        """The clip's own states, the silent window's to the end of a block, and the blocks after that."""
        length = own[0][0].shape[2] if own else 0
        end = min(-(-length // BLOCK) * BLOCK, self._window)
        layers = []
        for index, (silence, blocks) in enumerate(zip(self._silence, self._blocks, strict=True)):
            parts = [
                (rest[:, :, length:end], block[:, :, end // BLOCK :])
                for rest, block in zip(silence, blocks, strict=True)
            ]
            mine = own[index] if own else (silence[0][:, :, :0], silence[1][:, :, :0])
            layers.append(tuple(torch.cat([first, *rest], 2) for first, rest in zip(mine, parts, strict=True)))
        counts = torch.zeros(layers[0][0].shape[2], dtype=self._type, device=self._device)
        counts[end:] = math.log(BLOCK)
        return Memory(states, cast(list[KeyValue], layers), counts)


class _Head(nn.Module):
    """States to logits: of all tokens, or of the common ones and some given."""

    def __init__(self, projection: nn.Linear, end: int) -> None:
        super().__init__()
        weight = projection.weight.detach()
        self.end, self.full = end, projection
        self.register_buffer("weight", weight)
        common = torch.cat([weight[:COMMON_TOKENS], weight[end : end + 1]])
        self.common = nn.Linear(common.shape[1], common.shape[0], bias=False)
        with torch.no_grad():
            self.common.weight.copy_(common)

    def log_likelihoods(self, states: Tensor, parents: Tensor, wanted: Tensor) -> Tensor:
        """(steps,): of each wanted token after its parent's state."""
        normaliser = self.common(states).float().logsumexp(1)[parents]
        logits = (states[parents] * cast(Tensor, self.weight)[wanted]).float().sum(1)
        is_rare = (wanted >= COMMON_TOKENS) & (wanted != self.end)
        return logits - torch.where(is_rare, torch.logaddexp(normaliser, logits), normaliser)


def _hum_and_silence(length: int) -> Samples:
    """A buzz that rises and falls as often as syllables do, then silence."""
    seconds = np.arange(min(int(HUM_S * SAMPLE_RATE), length)) / SAMPLE_RATE
    pitch = HUM_PITCH_HZ + 20.0 * np.sin(4.0 * np.pi * seconds)
    phase = 2.0 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    voice = sum(np.cos(number * phase) / number for number in range(1, 30))
    loudness = 0.5 - 0.5 * np.cos(2.0 * np.pi * SYLLABLES_HZ * seconds)
    result = np.zeros(length, np.float32)
    result[: len(seconds)] = 0.1 * voice * loudness
    return result


def _merged(states: Tensor) -> Tensor:
    """(1, heads, states, width) → (1, heads, blocks, width): means of full blocks."""
    return torch.stack([block.mean(2) for block in torch.split(states, BLOCK, 2)], 2)


def _ban(tokens: Sequence[int], vocabulary: int, first_special: int | None = None) -> Tensor:
    """What is added to the logits so that these tokens (and all special ones) are never chosen."""
    ban = torch.zeros(vocabulary)
    ban[[token for token in tokens if 0 <= token < vocabulary]] = -torch.inf
    if first_special is not None:
        ban[first_special:] = -torch.inf
    return ban


def _prompt(tokenizer: Any) -> tuple[tuple[int, ...], int]:
    """The tokens before a transcript without timestamps, and the one after it."""
    vocabulary = tokenizer.get_vocab()
    names = ["<|startoftranscript|>", "<|notimestamps|>"]
    if vocabulary.get("<|endoftext|>", 0) > LAST_ENGLISH_TOKEN:
        names[1:1] = ["<|en|>", "<|transcribe|>"]
    missing = [name for name in [*names, "<|endoftext|>"] if name not in vocabulary]
    if missing:
        raise CorruptData(f"the tokenizer is not Whisper's: it lacks {', '.join(missing)}")
    return tuple(vocabulary[name] for name in names), vocabulary["<|endoftext|>"]
