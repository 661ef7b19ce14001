"""Probe messages: what agents send each other, signed with a key that the manager gives them.

A probe names the node that is meant and carries a number drawn for it; the answer repeats both. Whoever lacks the key
can neither answer nor make a probe, and an answer that was recorded fits no later probe. Both are 50 bytes.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Kind = Literal["probe", "answer"]

_MARK = b"NR1"
_KINDS: dict[Kind, bytes] = {"probe": b"?", "answer": b"!"}
_NODE, _NUMBER, _SIGNATURE = 16, 8, 22
LENGTH = len(_MARK) + 1 + _NODE + _NUMBER + _SIGNATURE
KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class ProbeMessage:
    """A probe of a node, or the answer to one."""

    kind: Kind
    node_id: str
    number: int

    def pack(self, key: bytes) -> bytes:
        """The datagram, signed."""
        number = self.number.to_bytes(_NUMBER, "big")
        body = _MARK + _KINDS[self.kind] + _digest(self.node_id) + number
        return body + _sign(body, key)

    def answer(self) -> ProbeMessage:
        return ProbeMessage("answer", self.node_id, self.number)


def unpack(datagram: bytes, node_id: str, key: bytes) -> ProbeMessage | None:
    """The message, where it is one of ours about this node under this key; None for anything else."""
    if len(datagram) != LENGTH or not datagram.startswith(_MARK):
        return None
    body, signature = datagram[:-_SIGNATURE], datagram[-_SIGNATURE:]
    if not hmac.compare_digest(signature, _sign(body, key)):
        return None
    mark, node, number = body[3:4], body[4 : 4 + _NODE], body[4 + _NODE :]
    kinds = [kind for kind, byte in _KINDS.items() if byte == mark]
    if not kinds or node != _digest(node_id):
        return None
    return ProbeMessage(kinds[0], node_id, int.from_bytes(number, "big"))


@lru_cache(maxsize=4096)
def _digest(node_id: str) -> bytes:
    return hashlib.blake2b(node_id.encode(), digest_size=_NODE).digest()


def _sign(body: bytes, key: bytes) -> bytes:
    return hmac.digest(key, body, "sha256")[:_SIGNATURE]
