"""What a fusion request carries: any subset of text, code, an image and a sound, and the possible answers."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from typing import Annotated

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from noodle_ray.base_model import Model
from noodle_ray.errors import TooLarge
from noodle_ray.fusion import limits
from noodle_ray.fusion.modality import FIELD_OF


def _clean(value: str) -> str:
    if not value.strip():
        raise ValueError("must hold more than spaces")
    if "\0" in value:
        raise ValueError("must not hold NUL characters")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("must not hold lone surrogates: it is no Unicode text")
    return value


def _at_most(field: str, limit: int) -> Callable[[object], object]:
    """Refuses a string that is too long before anything else looks at it."""

    def check(value: object) -> object:
        if isinstance(value, str) and len(value) > limit:
            raise TooLarge(field, len(value), limit, "characters")
        return value

    return check


def _bytes_of(field: str, limit: int) -> Callable[[object], bytes]:
    """Takes raw bytes, or a base64 string (either alphabet) as JSON carries them."""

    def read(value: object) -> bytes:
        if isinstance(value, str):
            value = _from_base64(field, value, limit)
        if not isinstance(value, bytes):
            raise ValueError("must be bytes, or a base64 string")
        if not value:
            raise ValueError("must not be empty")
        if len(value) > limit:
            raise TooLarge(field, len(value), limit, "bytes")
        return value

    return read


def _from_base64(field: str, text: str, limit: int) -> bytes:
    if len(text) // 4 * 3 > limit + 3:
        raise TooLarge(field, len(text) // 4 * 3, limit, "bytes")
    try:
        return base64.b64decode(text.translate(_STANDARD_ALPHABET), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"is no valid base64: {error}") from None


_STANDARD_ALPHABET = str.maketrans("-_", "+/")
_AS_BASE64 = (
    PlainSerializer(lambda value: base64.b64encode(value).decode(), return_type=str, when_used="json-unless-none"),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
)

Text = Annotated[str, BeforeValidator(_at_most("text", limits.TEXT_CHARACTERS)), AfterValidator(_clean)]
Code = Annotated[str, BeforeValidator(_at_most("code", limits.CODE_CHARACTERS)), AfterValidator(_clean)]
ImageFile = Annotated[bytes, BeforeValidator(_bytes_of("image", limits.IMAGE_BYTES)), *_AS_BASE64]
SoundFile = Annotated[bytes, BeforeValidator(_bytes_of("audio", limits.AUDIO_BYTES)), *_AS_BASE64]
Candidate = Annotated[str, Field(max_length=limits.CANDIDATE_CHARACTERS), AfterValidator(_clean)]


class MultimodalInput(Model):
    """One request. At least one of `text`, `code`, `image` and `audio` is given.

    `image` is a file's bytes (JPEG, PNG, WebP, GIF, BMP), `audio` too (WAV, FLAC, Ogg, MP3; at most 30 s); over JSON
    both are base64 strings. With `candidates` (distinct) the answer ranks them; without, it is an embedding alone.
    `deadline_ms` shortens the service's own limit. Raises InvalidInput, or TooLarge for what is over its limit.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    text: Text | None = None
    code: Code | None = None
    image: ImageFile | None = Field(default=None, repr=False)
    audio: SoundFile | None = Field(default=None, repr=False)
    candidates: Annotated[tuple[Candidate, ...], Field(max_length=limits.CANDIDATES)] = ()
    deadline_ms: Annotated[int, Field(gt=0, le=86_400_000)] | None = None

    @model_validator(mode="after")
    def _asks_something(self) -> MultimodalInput:
        if not any(True for _ in self.given()):
            raise ValueError("give at least one of text, code, image and audio")
        if len(set(self.candidates)) < len(self.candidates):
            raise ValueError("candidates must differ from each other")
        return self

    def given(self) -> Iterator[tuple[str, str | bytes]]:
        """The modalities that are there, in the fixed order, with what was given for each."""
        for modality, field in FIELD_OF.items():
            content: str | bytes | None = getattr(self, field)
            if content is not None:
                yield modality, content
