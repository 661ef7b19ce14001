"""Reads a CTranslate2 model container and renames a Whisper one's variables to transformers' names.

The layout is CTranslate2's `model.bin` (version 6): a header (version, spec name, revision), then for each variable
its name, rank, dimensions, type and bytes, then aliases of variables. All numbers are little-endian, and strings are
zero-terminated behind a 16-bit length.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from transformers import WhisperConfig

from noodle_ray.errors import CorruptData

Array = npt.NDArray[np.generic]

VERSION = 6
# CTranslate2 numbers its types in this order; bfloat16 (5) has no numpy type and is not needed here.
TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)


@dataclass(frozen=True, slots=True)
class Container:
    """What a `model.bin` holds: the spec's name and revision, and the variables (aliases resolved)."""

    spec: str
    revision: int
    variables: dict[str, Array]


class _Reader:
    """A cursor over bytes that refuses to read past the end."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._offset = 0

    def take(self, size: int) -> memoryview:
        end = self._offset + size
        if end > len(self._data):
            raise CorruptData(f"model.bin ends at byte {len(self._data)}, in the middle of a value that ends at {end}")
        part = self._data[self._offset : end]
        self._offset = end
        return part

    def number(self, kind: str) -> int:
        value: int = struct.unpack("<" + kind, self.take(struct.calcsize("<" + kind)))[0]
        return value

    def string(self) -> str:
        return bytes(self.take(self.number("H"))).rstrip(b"\0").decode("utf-8", "replace")

    @property
    def rest(self) -> int:
        return len(self._data) - self._offset


def read_container(data: bytes) -> Container:
    """Parses a `model.bin`. The arrays are views into `data`. Raises CorruptData."""
    reader = _Reader(data)
    version = reader.number("I")
    if version != VERSION:
        raise CorruptData(f"model.bin has container version {version}; only {VERSION} is known")
    spec, revision = reader.string(), reader.number("I")
    variables = dict(_read_variable(reader) for _ in range(reader.number("I")))
    for alias, name in [(reader.string(), reader.string()) for _ in range(reader.number("I"))]:
        if name not in variables:
            raise CorruptData(f"model.bin: {alias} stands for {name}, which is not there")
        variables[alias] = variables[name]
    if reader.rest:
        raise CorruptData(f"model.bin has {reader.rest} bytes too many")
    return Container(spec, revision, variables)


def _read_variable(reader: _Reader) -> tuple[str, Array]:
    name = reader.string()
    shape = [reader.number("I") for _ in range(reader.number("B"))]
    kind, size = reader.number("B"), reader.number("I")
    if kind >= len(TYPES):
        raise CorruptData(f"model.bin: {name} has the unknown type {kind}")
    if math.prod(shape) * np.dtype(TYPES[kind]).itemsize != size:
        raise CorruptData(f"model.bin: {name} of shape {shape} does not fill {size} bytes")
    return name, np.frombuffer(reader.take(size), TYPES[kind]).reshape(shape)


def whisper_config(container: Container) -> WhisperConfig:
    """The transformers configuration that the container's shapes describe (English-only Whisper token ids)."""
    if container.spec != "WhisperSpec":
        raise CorruptData(f"model.bin holds {container.spec!r}, not a Whisper model")
    variables = container.variables
    vocabulary, width = variables["decoder/embeddings/weight"].shape
    return WhisperConfig(
        vocab_size=vocabulary,
        d_model=width,
        num_mel_bins=variables["encoder/conv1/weight"].shape[1],
        encoder_layers=_layers(variables, "encoder"),
        decoder_layers=_layers(variables, "decoder"),
        encoder_attention_heads=int(variables["encoder/num_heads"]),
        decoder_attention_heads=int(variables["decoder/num_heads"]),
        encoder_ffn_dim=variables["encoder/layer_0/ffn/linear_0/weight"].shape[0],
        decoder_ffn_dim=variables["decoder/layer_0/ffn/linear_0/weight"].shape[0],
        max_source_positions=variables["encoder/position_encodings/encodings"].shape[0],
        max_target_positions=variables["decoder/position_encodings/encodings"].shape[0],
        decoder_start_token_id=50257,
        bos_token_id=50256,
        eos_token_id=50256,
        pad_token_id=50256,
    )


def _layers(variables: dict[str, Array], side: str) -> int:
    return len({name.split("/")[1] for name in variables if name.startswith(f"{side}/layer_") and name.count("/") > 2})


def whisper_state_dict(container: Container) -> dict[str, torch.Tensor]:
    """The variables under the names of transformers' WhisperForConditionalGeneration, in float32.

    CTranslate2 stacks the projections of one attention (query, key, value; or key, value) into one matrix, and gives
    the key a bias that Whisper does not have: it must be zero. Raises CorruptData where something is missing.
    """
    try:
        tensors = dict(_whisper_tensors(container.variables))
    except KeyError as error:
        raise CorruptData(f"model.bin lacks the variable {error}") from None
    return {name: torch.from_numpy(array.astype(np.float32)) for name, array in tensors.items()}


def _whisper_tensors(variables: dict[str, Array]) -> Iterator[tuple[str, Array]]:
    yield "proj_out.weight", variables["decoder/projection/weight"]
    yield "model.decoder.embed_tokens.weight", variables["decoder/embeddings/weight"]
    for conv in ("conv1", "conv2"):
        yield from _linear(variables, f"encoder/{conv}", f"model.encoder.{conv}")
    for side in ("encoder", "decoder"):
        yield f"model.{side}.embed_positions.weight", variables[f"{side}/position_encodings/encodings"]
        yield from _norm(variables, f"{side}/layer_norm", f"model.{side}.layer_norm")
        for layer in range(_layers(variables, side)):
            yield from _whisper_layer(variables, f"{side}/layer_{layer}", f"model.{side}.layers.{layer}")


def _whisper_layer(variables: dict[str, Array], source: str, target: str) -> Iterator[tuple[str, Array]]:
    yield from _attention(variables, f"{source}/self_attention", f"{target}.self_attn")
    yield from _norm(variables, f"{source}/self_attention/layer_norm", f"{target}.self_attn_layer_norm")
    if f"{source}/attention/linear_0/weight" in variables:
        yield from _attention(variables, f"{source}/attention", f"{target}.encoder_attn")
        yield from _norm(variables, f"{source}/attention/layer_norm", f"{target}.encoder_attn_layer_norm")
    yield from _norm(variables, f"{source}/ffn/layer_norm", f"{target}.final_layer_norm")
    yield from _linear(variables, f"{source}/ffn/linear_0", f"{target}.fc1")
    yield from _linear(variables, f"{source}/ffn/linear_1", f"{target}.fc2")


def _attention(variables: dict[str, Array], source: str, target: str) -> Iterator[tuple[str, Array]]:
    # Attention to itself is one stacked matrix and the output; attention to the encoder has its query apart.
    stacked = f"{source}/linear_2/weight" not in variables
    names = ["q_proj", "k_proj", "v_proj"] if stacked else ["k_proj", "v_proj"]
    if not stacked:
        yield from _linear(variables, f"{source}/linear_0", f"{target}.q_proj")
    middle, last = ("linear_0", "linear_1") if stacked else ("linear_1", "linear_2")
    weights = np.split(variables[f"{source}/{middle}/weight"], len(names))
    biases = np.split(variables[f"{source}/{middle}/bias"], len(names))
    for name, weight, bias in zip(names, weights, biases, strict=True):
        yield f"{target}.{name}.weight", weight
        if name != "k_proj":
            yield f"{target}.{name}.bias", bias
        elif np.any(bias):
            raise CorruptData(f"model.bin: {source} has a bias on its keys, which Whisper does not have")
    yield from _linear(variables, f"{source}/{last}", f"{target}.out_proj")


def _linear(variables: dict[str, Array], source: str, target: str) -> Iterator[tuple[str, Array]]:
    yield f"{target}.weight", variables[f"{source}/weight"]
    yield f"{target}.bias", variables[f"{source}/bias"]


def _norm(variables: dict[str, Array], source: str, target: str) -> Iterator[tuple[str, Array]]:
    yield f"{target}.weight", variables[f"{source}/gamma"]
    yield f"{target}.bias", variables[f"{source}/beta"]
