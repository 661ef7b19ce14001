"""How much of each thing one fusion request may carry."""

from __future__ import annotations

TEXT_CHARACTERS = 10_000
CODE_CHARACTERS = 50_000
CANDIDATES = 100
CANDIDATE_CHARACTERS = 500

IMAGE_BYTES = 16 * 2**20
IMAGE_PIXELS = 40_000_000
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")

AUDIO_BYTES = 16 * 2**20
AUDIO_SECONDS = 30.0
AUDIO_CHANNELS = 8
AUDIO_RATES_HZ = (4_000, 192_000)
AUDIO_FORMATS = ("WAV", "WAVEX", "FLAC", "OGG", "MP3")

CACHED_CANDIDATES = 4096
"""Candidate embeddings that one engine remembers: about 6 MB."""
