"""What is said about what is remembered: entries for an index, queries to fit it on, and what indexes and heads are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from noodle_ray.base_model import Model
from noodle_ray.fusion import limits
from noodle_ray.fusion.inputs import MultimodalInput, Name
from noodle_ray.fusion.items import Item, read_code, read_image, read_sound, read_text, several
from noodle_ray.fusion.modality import FIELD_OF, FIELDS

ENTRIES_AT_ONCE = 1000
QUERIES = 5000
META_CHARACTERS = 4096
NAME_CHARACTERS = 200
MODULES = "modules"
"""The index of the module registry: whatever is published is in it."""


def _small(meta: dict[str, Any]) -> dict[str, Any]:
    if len(json.dumps(meta)) > META_CHARACTERS:
        raise ValueError(f"must be at most {META_CHARACTERS} characters of JSON")
    return meta


EntryName = Annotated[str, Field(min_length=1, max_length=NAME_CHARACTERS, pattern=r"^[^\x00-\x1f\x7f]+$")]
Meta = Annotated[dict[str, Any], AfterValidator(_small)]


class Given(Model):
    """At least one of text, code, image and audio, each one item or several that show the same thing."""

    model_config = ConfigDict(hide_input_in_errors=True)

    text: Annotated[tuple[str, ...], *several(read_text, limits.TEXT_CHARACTERS)] = ()
    code: Annotated[tuple[str, ...], *several(read_code, limits.CODE_CHARACTERS)] = ()
    image: Annotated[tuple[bytes, ...], *several(read_image, limits.IMAGE_BYTES)] = Field(default=(), repr=False)
    audio: Annotated[tuple[bytes, ...], *several(read_sound, limits.AUDIO_BYTES)] = Field(default=(), repr=False)

    @model_validator(mode="after")
    def _gives_something(self) -> Given:
        if not any(True for _ in self.given()):
            raise ValueError("give at least one of text, code, image and audio")
        return self

    def given(self) -> Iterator[tuple[str, tuple[Item, ...]]]:
        """The modalities that are there, in the fixed order, with the items of each."""
        for modality, field in FIELD_OF.items():
            items: tuple[Item, ...] = getattr(self, field)
            if items:
                yield modality, items

    def request(self, index: str | None = None) -> MultimodalInput:
        """The same as a request, to be found in that index where one is named."""
        fields: dict[str, Any] = {field: getattr(self, field) for field in FIELDS}
        return MultimodalInput(**fields, index=index)


class NewEntry(Given):
    """What is to be found under a name. `meta` (at most 4096 characters of JSON) comes back with every answer."""

    name: EntryName
    meta: Meta = Field(default_factory=dict)


class KnownQuery(Given):
    """A query, and the name of the entry that it is to find."""

    answer: EntryName


class NewIndex(Model):
    """What kind of index it is to be."""

    kind: Name = "code"


class NewEntries(Model):
    """Entries for an index; one whose name is there replaces that one."""

    entries: Annotated[tuple[NewEntry, ...], Field(min_length=1, max_length=ENTRIES_AT_ONCE)]

    @model_validator(mode="after")
    def _differ(self) -> NewEntries:
        repeated = [name for name, count in Counter(entry.name for entry in self.entries).items() if count > 1]
        if repeated:
            raise ValueError(f"entries must differ in their names; there are several {repeated[0][:50]!r}")
        return self


class KnownQueries(Model):
    """Queries with known answers; a third of them validates what the others fitted."""

    queries: Annotated[tuple[KnownQuery, ...], Field(min_length=6, max_length=QUERIES)]


class IndexInfo(Model):
    """An index: its kind, how many entries it has, which version of it that is, and how its rule was fitted.

    damage: why it cannot be read, where it cannot. It can still be dropped.
    """

    name: str
    kind: str
    entries: int
    version: str = ""
    space: str = ""
    fitted: dict[str, Any] = Field(default_factory=dict)
    damage: str = ""


class HeadInfo(Model):
    """A trained head: what it tells apart, by which senses, and its model card. damage: why it cannot be read."""

    name: str
    labels: tuple[str, ...]
    modalities: tuple[str, ...] = ()
    version: str = ""
    card: dict[str, Any] = Field(default_factory=dict)
    damage: str = ""


class OpenedSession(Model):
    """A new session. Its id is the right to use it: whoever has it may. Unused for so long it ends by itself."""

    session: str
    idle_ms: int
