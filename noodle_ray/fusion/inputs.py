"""What a fusion request carries: any items of text, code, images and sounds, and what is asked of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from noodle_ray.base_model import Model
from noodle_ray.fusion import limits
from noodle_ray.fusion.items import Item, read_code, read_image, read_sound, read_text, several, single
from noodle_ray.fusion.modality import FIELD_OF, FIELDS

Ask = Literal["embed", "choose", "find", "classify"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
SessionId = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[!-~]+$")]

_HIDDEN = ConfigDict(hide_input_in_errors=True)


class Candidate(Model):
    """A possible answer: one text, piece of code, image or sound. `label` is what it is called in the answer.

    Without a label a text is called by itself, anything else by its field and position: "image 2".
    """

    model_config = _HIDDEN

    label: Annotated[str, Field(min_length=1, max_length=limits.CANDIDATE_CHARACTERS)] | None = None
    text: Annotated[str, *single(read_text, limits.CANDIDATE_CHARACTERS)] | None = None
    code: Annotated[str, *single(read_code, limits.CODE_CHARACTERS)] | None = None
    image: Annotated[bytes, *single(read_image, limits.IMAGE_BYTES)] | None = Field(default=None, repr=False)
    audio: Annotated[bytes, *single(read_sound, limits.AUDIO_BYTES)] | None = Field(default=None, repr=False)

    @model_validator(mode="after")
    def _is_one_thing(self) -> Candidate:
        if sum(getattr(self, field) is not None for field in FIELDS) != 1:
            raise ValueError("give one of text, code, image and audio")
        return self

    @property
    def modality(self) -> str:
        return next(modality for modality, field in FIELD_OF.items() if getattr(self, field) is not None)

    @property
    def content(self) -> Item:
        content: Item = getattr(self, FIELD_OF[self.modality])
        return content

    def name(self, position: int) -> str:
        """What it is called in the answer; `position` counts from 1."""
        return self.label or self.text or f"{FIELD_OF[self.modality]} {position}"


def _candidate(value: object) -> object:
    return {"text": value} if isinstance(value, str) else value


class MultimodalInput(Model):
    """One request: what is given, and what is asked.

    Given: at least one of `text`, `code`, `image` and `audio`, each one item or several that show the same
    thing. `image` is a file's bytes (JPEG, PNG, WebP, GIF, BMP), `audio` too (WAV, FLAC, Ogg, MP3); over JSON both are
    base64 strings.

    Asked: to *choose* among `candidates` (texts, or Candidates of any modality; their names differ); to *find* what
    matches in the `index` of that name; to *classify* with the trained `head` of that name; with none of them, to
    *embed* alone. `top` limits how many ranked answers come back (10 for an index, else all).

    `session` names a session that remembers what was given and answered; `use_context` says whether that counts as
    evidence here. `deadline_ms` shortens the service's own limit.
    Raises InvalidInput, or TooLarge for what is over its limit.
    """

    model_config = _HIDDEN

    text: Annotated[tuple[str, ...], *several(read_text, limits.TEXT_CHARACTERS)] = ()
    code: Annotated[tuple[str, ...], *several(read_code, limits.CODE_CHARACTERS)] = ()
    image: Annotated[tuple[bytes, ...], *several(read_image, limits.IMAGE_BYTES)] = Field(default=(), repr=False)
    audio: Annotated[tuple[bytes, ...], *several(read_sound, limits.AUDIO_BYTES)] = Field(default=(), repr=False)
    candidates: Annotated[
        tuple[Annotated[Candidate, BeforeValidator(_candidate)], ...], Field(max_length=limits.CANDIDATES)
    ] = ()
    index: Name | None = None
    head: Name | None = None
    top: Annotated[int, Field(ge=1, le=limits.CANDIDATES)] | None = None
    session: SessionId | None = None
    use_context: bool = True
    deadline_ms: Annotated[int, Field(gt=0, le=86_400_000)] | None = None

    @model_validator(mode="after")
    def _gives_something(self) -> MultimodalInput:
        if not any(True for _ in self.given()):
            raise ValueError("give at least one of text, code, image and audio")
        return self

    @model_validator(mode="after")
    def _asks_one_thing(self) -> MultimodalInput:
        if sum(map(bool, (self.candidates, self.index, self.head))) > 1:
            raise ValueError("give one of candidates, index and head: each asks for another answer")
        repeated = [name for name, count in Counter(self.names()).items() if count > 1]
        if repeated:
            raise ValueError(f"candidates must differ from each other; there are several {repeated[0][:50]!r}")
        if sum(candidate.text is None for candidate in self.candidates) > limits.MEDIA_CANDIDATES:
            raise ValueError(f"at most {limits.MEDIA_CANDIDATES} candidates may be other than texts")
        return self

    @property
    def ask(self) -> Ask:
        if self.candidates:
            return "choose"
        if self.index:
            return "find"
        return "classify" if self.head else "embed"

    def given(self) -> Iterator[tuple[str, tuple[Item, ...]]]:
        """The modalities that are there, in the fixed order, with the items of each."""
        for modality, field in FIELD_OF.items():
            items: tuple[Any, ...] = getattr(self, field)
            if items:
                yield modality, items

    def names(self) -> tuple[str, ...]:
        """What the candidates are called in the answer, in their order."""
        return tuple(candidate.name(position) for position, candidate in enumerate(self.candidates, 1))

    def texts(self) -> tuple[str, ...]:
        """The candidates' texts where all of them are texts, for encoders that score texts themselves; else none."""
        texts = tuple(candidate.text for candidate in self.candidates if candidate.text is not None)
        return texts if len(texts) == len(self.candidates) else ()
