"""How much of each thing one fusion request may carry."""

from __future__ import annotations

TEXT_CHARACTERS = 10_000
CODE_CHARACTERS = 50_000
ITEMS = 8
"""Items of one modality."""
CANDIDATES = 1000
MEDIA_CANDIDATES = 32
"""Candidates that are code, images or sounds: each is read by an encoder."""
CANDIDATE_CHARACTERS = 500

IMAGE_BYTES = 16 * 2**20
IMAGE_PIXELS = 40_000_000
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")

AUDIO_BYTES = 16 * 2**20
AUDIO_SECONDS = 30.0
AUDIO_CHANNELS = 8
AUDIO_RATES_HZ = (4_000, 192_000)
AUDIO_FORMATS = ("WAV", "WAVEX", "FLAC", "OGG", "MP3")

CACHE_BYTES = 64 * 2**20
"""Memory in which one engine remembers readings."""
CACHED_CANDIDATES = 16_384
"""Candidate embeddings that one engine remembers: about 25 MB."""
