"""How much of each thing one fusion request may carry: ceilings for every deployment, and the limits of this one."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from noodle_ray.base_model import Model

TEXT_CHARACTERS = 80_000
CODE_CHARACTERS = 80_000
"""Far beyond what any encoder reads of them."""
CANDIDATES = 1_000
CANDIDATE_CHARACTERS = 500
ITEMS = 64

IMAGE_BYTES = 32 * 2**20
IMAGE_PIXELS = 80_000_000
"""Pillow has a guard of its own, which warns from 89 million on."""
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")

AUDIO_BYTES = 32 * 2**20
AUDIO_SECONDS = 30.0
"""What Whisper hears at once."""
AUDIO_CHANNELS = 8
AUDIO_RATES_HZ = (4_000, 192_000)
AUDIO_FORMATS = ("WAV", "WAVEX", "FLAC", "OGG", "MP3")

DECODING_BYTES = (64 * 2**20, 16 * 2**30)
"""Least: a file of the largest size as it comes in, once more as a message, and a little to decode it with."""

CACHE_BYTES = 64 * 2**20
"""Memory in which one engine remembers readings."""
CACHED_CANDIDATES = 16_384
"""Candidate embeddings that one engine remembers: about 25 MB."""
MEDIA_CANDIDATES = 32
"""Candidates that are code, images or sounds: each is read by an encoder."""

TextCharacters = Annotated[int, Field(gt=0, le=TEXT_CHARACTERS)]
CodeCharacters = Annotated[int, Field(gt=0, le=CODE_CHARACTERS)]
ImageBytes = Annotated[int, Field(gt=0, le=IMAGE_BYTES)]
ImagePixels = Annotated[int, Field(gt=0, le=IMAGE_PIXELS)]
AudioBytes = Annotated[int, Field(gt=0, le=AUDIO_BYTES)]
AudioSeconds = Annotated[float, Field(gt=0, le=AUDIO_SECONDS)]
Candidates = Annotated[int, Field(gt=0, le=CANDIDATES)]
Items = Annotated[int, Field(gt=0, le=ITEMS)]
DecodingTime = Annotated[int, Field(gt=0, le=60_000)]
DecodingBytes = Annotated[int, Field(ge=DECODING_BYTES[0], le=DECODING_BYTES[1])]


class Limits(Model):
    """The limits of one deployment, each NOODLE_FUSION_MAX_… in the settings; none is above its ceiling.

    items: of one modality in a request. decoding_time_ms: one file may take, on the clock.
    decoding_bytes: memory that its decoder may take beyond what it has when idle; the file itself counts.
    """

    text_characters: TextCharacters = 10_000
    code_characters: CodeCharacters = 50_000
    image_bytes: ImageBytes = 16 * 2**20
    image_pixels: ImagePixels = 40_000_000
    audio_bytes: AudioBytes = 16 * 2**20
    audio_seconds: AudioSeconds = AUDIO_SECONDS
    candidates: Candidates = 1_000
    items: Items = 8
    decoding_time_ms: DecodingTime = 2_000
    decoding_bytes: DecodingBytes = 512 * 2**20


DEFAULT = Limits()
