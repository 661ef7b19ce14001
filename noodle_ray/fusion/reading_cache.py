"""Remembers readings by what was read, by which encoder and, where that matters, for which candidates."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

from noodle_ray.fusion.items import Item
from noodle_ray.fusion.reading import Reading


def content_key(modality: str, version: str, item: Item, texts: Sequence[str] | None = None) -> bytes:
    """The same for the same content, encoder and texts, in any process; nothing else has it.

    `texts`: the candidates' texts that the reading depends on, or None where it depends on none.
    """
    digest = blake2b(digest_size=20)
    content = item.encode() if isinstance(item, str) else item
    told = () if texts is None else ("texts", *texts)
    for part in (modality.encode(), version.encode(), content, *(text.encode() for text in told)):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


class ReadingCache:
    """At most `limit_bytes` of readings, the least recently used first to go."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._bytes = 0
        self._readings: OrderedDict[bytes, Reading] = OrderedDict()

    def __len__(self) -> int:
        return len(self._readings)

    @property
    def nbytes(self) -> int:
        return self._bytes

    def get(self, key: bytes) -> Reading | None:
        """The reading that is there; asking for it makes it the most recently used."""
        reading = self._readings.get(key)
        if reading is not None:
            self._readings.move_to_end(key)
        return reading

    def put(self, key: bytes, reading: Reading) -> None:
        if (before := self._readings.pop(key, None)) is not None:
            self._bytes -= before.nbytes
        self._readings[key] = reading
        self._bytes += reading.nbytes
        while self._bytes > self._limit:
            _, gone = self._readings.popitem(last=False)
            self._bytes -= gone.nbytes
