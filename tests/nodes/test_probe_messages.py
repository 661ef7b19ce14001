"""Probes are believed only where they are whole, meant for this node, and signed with the key."""

from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.nodes.probe_messages import LENGTH, ProbeMessage, unpack

KEY, OTHER = b"k" * 32, b"o" * 32


@given(node=st.text(max_size=60), number=st.integers(0, 2**64 - 1))
def test_a_probe_and_its_answer_are_read_back(node: str, number: int) -> None:
    probe = ProbeMessage("probe", node, number)
    assert unpack(probe.pack(KEY), node, KEY) == probe
    assert unpack(probe.answer().pack(KEY), node, KEY) == ProbeMessage("answer", node, number)
    assert len(probe.pack(KEY)) == LENGTH == 50


def test_another_key_another_node_or_a_torn_one_is_nothing() -> None:
    packed = ProbeMessage("probe", "n", 7).pack(KEY)
    assert unpack(packed, "n", OTHER) is None
    assert unpack(packed, "m", KEY) is None
    assert unpack(packed[:-1], "n", KEY) is None
    assert unpack(b"", "n", KEY) is None


@given(place=st.integers(0, LENGTH - 1), flip=st.integers(1, 255))
def test_a_changed_byte_is_noticed(place: int, flip: int) -> None:
    packed = bytearray(ProbeMessage("answer", "n", 7).pack(KEY))
    packed[place] ^= flip
    assert unpack(bytes(packed), "n", KEY) is None


@given(st.binary(max_size=80))
def test_noise_is_nothing(noise: bytes) -> None:
    assert unpack(noise, "n", KEY) is None
