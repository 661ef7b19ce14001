"""Greedy decoding in one compiled function a token: 8-bit weights, 16-bit activations, one thread.

One token at a time is too little work for torch's kernels: most of the time goes into calling them. Here a decoder
step is machine code that reads each weight once. Products of 8 and 16 bits are added up in 32 without overflow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float32]
EPSILON = 1e-5


class Matrices(NamedTuple):
    """The same matrix of every layer: (layers, outputs, inputs) in 8 bits, scales and biases (layers, outputs)."""

    weights: npt.NDArray[np.int8]
    scales: Floats
    biases: Floats


class Norms(NamedTuple):
    weights: Floats
    biases: Floats


class Weights(NamedTuple):
    """All of a decoder: `head` as a layer of its own."""

    project: Matrices
    out: Matrices
    query: Matrices
    heard: Matrices
    widen: Matrices
    narrow: Matrices
    head: Matrices
    norms: tuple[Norms, Norms, Norms]
    last: Norms


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _multiply(matrices: Any, layer: int, values: Any) -> Any:
    weights, scales, biases = matrices.weights[layer], matrices.scales[layer], matrices.biases[layer]
    outputs, inputs = weights.shape
    limit = np.float32(min(16383.0, 2147483647.0 / (127.0 * inputs) - 1.0))
    step = max(np.abs(values).max(), np.float32(1e-20)) / limit
    rounded = np.empty(inputs, np.int16)
    for index in range(inputs):
        rounded[index] = np.int16(np.rint(values[index] / step))
    result = np.empty(outputs, np.float32)
    for row in range(outputs):
        total = np.int32(0)
        for column in range(inputs):
            # Kept to 32 bits at each step, or else numba widens to 64 and the processor does a quarter at once.
            total = np.int32(total + np.int32(weights[row, column]) * np.int32(rounded[column]))
        result[row] = np.float32(total) * (scales[row] * step) + biases[row]
    return result


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _normalise(norms: Any, layer: int, values: Any) -> Any:
    mean = values.mean()
    centred = values - mean
    spread = np.sqrt((centred * centred).mean() + np.float32(EPSILON))
    return (centred / spread * norms.weights[layer] + norms.biases[layer]).astype(np.float32)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _attend(query: Any, keys: Any, values: Any, counts: Any) -> Any:
    """(width,): keys and values (heads, states, width of a head), counts (states,) in logarithms."""
    heads, states, width = keys.shape
    result = np.zeros(heads * width, np.float32)
    shares = np.empty(states, np.float32)
    scale = np.float32(1.0 / np.sqrt(width))
    for head in range(heads):
        own = query[head * width : (head + 1) * width]
        for state in range(states):
            product = np.float32(0.0)
            for index in range(width):
                product += own[index] * keys[head, state, index]
            shares[state] = product * scale + counts[state]
        greatest, total = shares.max(), np.float32(0.0)
        for state in range(states):
            shares[state] = np.exp(shares[state] - greatest)
            total += shares[state]
        for state in range(states):
            share = shares[state] / total
            for index in range(width):
                result[head * width + index] += share * values[head, state, index]
    return result


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _step(weights: Any, hidden: Any, keys: Any, values: Any, place: int, heard: Any, counts: Any, wanted: bool) -> Any:
    """The logits after a token at a place, where they are wanted. The token's keys and values are put into `keys`
    and `values` (layers, heads, places, width of a head).

    heard: (layers, 2, heads, states, width of a head).
    """
    layers, heads, _, width = keys.shape
    nothing = np.zeros(place + 1, np.float32)
    for layer in range(layers):
        projected = _multiply(weights.project, layer, _normalise(weights.norms[0], layer, hidden))
        by_head = projected.reshape(3, heads, width)
        keys[layer, :, place] = by_head[1]
        values[layer, :, place] = by_head[2]
        seen = _attend(projected[: heads * width], keys[layer, :, : place + 1], values[layer, :, : place + 1], nothing)
        hidden = hidden + _multiply(weights.out, layer, seen)
        query = _multiply(weights.query, layer, _normalise(weights.norms[1], layer, hidden))
        seen = _attend(query, heard[layer, 0], heard[layer, 1], counts)
        hidden = hidden + _multiply(weights.heard, layer, seen)
        wide = _multiply(weights.widen, layer, _normalise(weights.norms[2], layer, hidden))
        for index in range(len(wide)):
            wide[index] *= np.float32(0.5 * (1.0 + math.erf(wide[index] * 0.7071067811865476)))
        hidden = hidden + _multiply(weights.narrow, layer, wide)
    if not wanted:
        return hidden
    return _multiply(weights.head, 0, _normalise(weights.last, 0, hidden))


@dataclass(slots=True)
class Progress:
    """What a decoding has written so far."""

    heard: Floats
    counts: Floats
    keys: Floats
    values: Floats
    place: int = 0


class CompiledDecoder:
    """A decoder's weights, rounded to 8 bits; `decoder` and `head` as of whisper_layers, in fp32, are only read."""

    def __init__(self, decoder: Any, head: Any) -> None:
        self._weights = _weights_of(decoder, head)
        self._embeddings = decoder.embeddings.numpy()
        self._positions = decoder.positions.numpy()

    def begin(self, layers: Any, counts: Any, longest: int) -> Progress:
        """A decoding of at most that many tokens. `layers`, `counts`: as in whisper.Memory."""
        heard = np.stack([np.stack([key[0].numpy(), value[0].numpy()]) for key, value in layers])
        shape = (heard.shape[0], heard.shape[2], longest, heard.shape[4])
        return Progress(heard, counts.numpy(), np.zeros(shape, np.float32), np.zeros(shape, np.float32))

    def logits(self, progress: Progress, tokens: Sequence[int]) -> Floats:
        """(vocabulary,): what may follow the tokens, which come next."""
        for number, token in enumerate(tokens, 1):
            hidden = self._embeddings[token] + self._positions[progress.place]
            known = (progress.keys, progress.values, progress.place, progress.heard, progress.counts)
            progress.place += 1
            result: Floats = _step(self._weights, hidden, *known, number == len(tokens))
        return result


def _weights_of(decoder: Any, head: Any) -> Weights:
    attentions, hearings, forwards = decoder.attentions, decoder.hearings, decoder.feedforwards
    return Weights(
        _rounded([block.project for block in attentions]),
        _rounded([block.out for block in attentions]),
        _rounded([block.query for block in hearings]),
        _rounded([block.out for block in hearings]),
        _rounded([block.widen for block in forwards]),
        _rounded([block.narrow for block in forwards]),
        _rounded([head]),
        (_norms(attentions), _norms(hearings), _norms(forwards)),
        Norms(decoder.norm.weight.detach().numpy()[None], decoder.norm.bias.detach().numpy()[None]),
    )


def _norms(blocks: Any) -> Norms:
    return Norms(
        np.stack([block.norm.weight.detach().numpy() for block in blocks]),
        np.stack([block.norm.bias.detach().numpy() for block in blocks]),
    )


def _rounded(linears: Any) -> Matrices:
    weights = np.stack([linear.weight.detach().numpy() for linear in linears])
    scales = np.maximum(np.abs(weights).max(2), 1e-12) / 127.0
    biases = [
        np.zeros(len(w), np.float32) if linear.bias is None else linear.bias.detach().numpy()
        for linear, w in zip(linears, weights, strict=True)
    ]
    return Matrices(np.rint(weights / scales[:, :, None]).astype(np.int8), scales.astype(np.float32), np.stack(biases))
