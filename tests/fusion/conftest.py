"""The real pack, its encoders and the real data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from noodle_ray.entry.training import datasets
from noodle_ray.errors import CorruptData, Unavailable
from noodle_ray.fusion_models.encoders import ModalityEncoder, load_encoder
from noodle_ray.fusion_models.fetch import fetch_base
from noodle_ray.fusion_models.packs import Pack, load_pack
from noodle_ray.settings import read_settings


@pytest.fixture(scope="session")
def cache_dir() -> Path:
    """The user's cache, or NOODLE_CACHE_DIR: weights are brought once for all runs."""
    return read_settings().cache_dir


@pytest.fixture(scope="session")
def base(cache_dir: Path) -> Pack:
    fetch_base(cache_dir)
    return load_pack("base", cache_dir)


@pytest.fixture(scope="session")
def encoders(base: Pack) -> dict[str, ModalityEncoder]:
    torch.set_num_threads(1)
    return {modality: load_encoder(base, modality) for modality in base.modalities}


@pytest.fixture(scope="session")
def speech(cache_dir: Path) -> datasets.SpeechSet:
    try:
        return datasets.fetch_speech(cache_dir)
    except (Unavailable, CorruptData) as error:
        pytest.skip(f"{error} (`noodle data fetch speech`)")


@pytest.fixture(scope="session")
def photographs() -> dict[str, datasets.Photograph]:
    return {photograph.name: photograph for photograph in datasets.photographs()}
