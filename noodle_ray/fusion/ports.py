"""What the fusion engine needs of others: encoders, a decoder, and what is remembered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.fusion.items import Item
from noodle_ray.fusion.reading import Matrix, Reading
from noodle_ray.fusion.remembered import Remembered, Turn
from noodle_ray.fusion.rule import Rule, Scores


@dataclass(frozen=True, slots=True)
class Placed:
    """Texts in an anchor's space: (n, width) unit vectors."""

    space: str
    rows: Matrix


class Encoders(Protocol):
    """The encoders that run just now. `version` is that of a modality's encoder; it stays there for a while longer."""

    async def versions(self, modalities: Sequence[str]) -> dict[str, str]:
        """Which version takes this request's calls, by modality; without those that nothing reads."""
        ...

    async def read(
        self, modality: str, version: str, items: Sequence[Any], texts: tuple[str, ...], within_s: float
    ) -> Sequence[Reading]:
        """Reads the decoded items. `texts` are the candidates', for encoders that score them.

        What could not be begun within `within_s` seconds is not begun. Raises Unavailable, DeadlineExceeded, and
        InvalidInput for content that cannot be read.
        """
        ...

    async def place(self, version: str, texts: tuple[str, ...], within_s: float) -> Placed:
        """Places texts, by the text encoder of that version. Raises as `read`."""
        ...


class Decoder(Protocol):
    """Makes of a file's bytes what an encoder reads."""

    async def decode(self, modality: str, item: Item) -> Any:
        """Raises InvalidInput, TooLarge."""
        ...


class Searchable(Protocol):
    """An index of entries: names, what is kept with each, and how well each matches what was read."""

    @property
    def rule(self) -> Rule: ...

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def texts(self) -> tuple[str, ...]:
        """The entries' texts, where all have one, for encoders that score texts themselves; else none."""
        ...

    def meta(self, position: int) -> dict[str, Any]: ...

    def search(self, request: MultimodalInput, readings: Mapping[str, Reading]) -> dict[str, Scores]:
        """By source, a score for each entry, of what was read of the request (and remembered before it).

        Raises InvalidInput for readings of another space, Conflict where the index is empty.
        """
        ...


class Classifier(Protocol):
    """A trained head."""

    @property
    def rule(self) -> Rule: ...

    @property
    def labels(self) -> Sequence[str]: ...

    def scores(self, readings: Mapping[str, Reading]) -> dict[str, Scores]:
        """By source, a score for each label. Raises InvalidInput for readings of encoders it was not trained on."""
        ...


class Indexes(Protocol):
    async def index(self, name: str) -> Searchable:
        """The index as it is now. Raises NotFound."""
        ...


class Heads(Protocol):
    async def head(self, name: str) -> Classifier:
        """Raises NotFound, CorruptData."""
        ...


class Sessions(Protocol):
    async def remembered(self, session: str) -> Remembered:
        """Raises NotFound where there is no such session (any more)."""
        ...

    async def note(self, session: str, turn: Turn) -> None:
        """Adds a turn. Nobody waits for it; a session that has gone meanwhile is no error."""
        ...


class SharedReadings(Protocol):
    """Readings that other replicas have made."""

    async def recall(self, keys: Sequence[bytes]) -> Mapping[bytes, Reading]: ...

    async def remember(self, readings: Mapping[bytes, Reading]) -> None: ...
