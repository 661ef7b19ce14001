"""The reader of CTranslate2's container: what it reads, and what it refuses."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.errors import CorruptData
from noodle_ray.fusion_models.ctranslate2_files import Container, read_container, whisper_config, whisper_state_dict


def text(value: str) -> bytes:
    return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"


def container(
    variables: dict[str, np.ndarray], aliases: dict[str, str] | None = None, spec: str = "WhisperSpec"
) -> bytes:
    kinds = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}
    data = struct.pack("<I", 6) + text(spec) + struct.pack("<II", 3, len(variables))
    for name, array in variables.items():
        data += text(name) + struct.pack("<B", array.ndim) + b"".join(struct.pack("<I", n) for n in array.shape)
        data += struct.pack("<BI", kinds[array.dtype.name], array.nbytes) + array.tobytes()
    data += struct.pack("<I", len(aliases or {}))
    for alias, name in (aliases or {}).items():
        data += text(alias) + text(name)
    return data


GOOD = container({"a": np.arange(6, dtype=np.float16).reshape(2, 3), "n": np.int16(6)}, {"b": "a"})


def test_variables_come_back_with_shape_type_and_aliases() -> None:
    read = read_container(GOOD)
    assert (read.spec, read.revision) == ("WhisperSpec", 3)
    assert read.variables["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read.variables["a"].dtype == np.float16
    assert int(read.variables["n"]) == 6
    assert read.variables["b"] is read.variables["a"]


@given(st.integers(0, len(GOOD) - 1))
def test_a_cut_off_container_is_refused(length: int) -> None:
    with pytest.raises(CorruptData):
        read_container(GOOD[:length])


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (struct.pack("<I", 5) + GOOD[4:], "version 5"),
        (GOOD + b"x", "too many"),
        (container({"a": np.int8(1)}, {"b": "c"}), "not there"),
        (GOOD.replace(struct.pack("<BI", 4, 12), struct.pack("<BI", 9, 12)), "unknown type"),
        (GOOD.replace(struct.pack("<BI", 4, 12), struct.pack("<BI", 0, 12)), "does not fill"),
    ],
)
def test_what_does_not_add_up_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(CorruptData, match=problem):
        read_container(data)


def test_other_models_and_incomplete_ones_are_refused() -> None:
    with pytest.raises(CorruptData, match="TransformerSpec"):
        whisper_config(Container("TransformerSpec", 1, {}))
    with pytest.raises(CorruptData, match="lacks the variable"):
        whisper_state_dict(Container("WhisperSpec", 1, {}))
