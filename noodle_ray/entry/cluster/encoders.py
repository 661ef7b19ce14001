"""Starts the pack's encoders as modules, and swaps those whose configuration has changed."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from noodle_ray.actors.module_encoders import ModuleEncoders
from noodle_ray.entry.modules import AsyncModules
from noodle_ray.errors import NoodleError, NotFound
from noodle_ray.fusion.modality import MODALITIES
from noodle_ray.fusion_models.encoder_modules import module_name, tag_of, write_module
from noodle_ray.fusion_models.packs import load_pack
from noodle_ray.fusion_models.processors import EncoderConfig
from noodle_ray.modules.versions import parse_version
from noodle_ray.settings import Settings

FIRST = "1.0.0"
STOP_S = 30.0
log = structlog.get_logger()


def connect_encoders() -> ModuleEncoders:
    """The engine's way to the encoders; to be called where the engine is."""
    return ModuleEncoders(module_name)


def start_encoders(settings: Settings) -> dict[str, str]:
    """Has the pack's encoders run, and gives their modules' versions.

    Checks the pack first, so that a damaged one is an error here and not in a replica. Raises CorruptData, NotFound
    (pack), ModuleFailed, DeadlineExceeded.
    """
    pack = load_pack(settings.pack, settings.cache_dir)
    return asyncio.run(_start_all(settings, {modality: pack.version(modality) for modality in pack.modalities}))


def stop_encoders() -> None:
    """Has the encoders end and free what they hold; without a registry that answers there is nobody to ask."""
    try:
        asyncio.run(asyncio.wait_for(_stop_all(), STOP_S))
    except (NoodleError, TimeoutError) as error:
        log.warning("encoders not stopped", error=str(error))


async def _stop_all() -> None:
    modules = AsyncModules()
    names = {module_name(modality) for modality in MODALITIES}
    loaded = [module["name"] for module in await modules.list() if module["loaded"] and module["name"] in names]
    await asyncio.gather(*map(modules.unload, loaded))


async def _start_all(settings: Settings, weights: Mapping[str, str]) -> dict[str, str]:
    modules = AsyncModules()
    started = await asyncio.gather(
        *(_start(modules, settings, modality, version) for modality, version in weights.items())
    )
    return dict(zip(weights, started, strict=True))


async def _start(modules: AsyncModules, settings: Settings, modality: str, weights: str) -> str:
    config = EncoderConfig(modality, settings.pack, weights, settings.fusion_precision, settings.fusion_device)
    name = module_name(modality)
    try:
        known: Mapping[str, Any] = await modules.describe(name)
    except NotFound:
        known = {"versions": [], "loaded": None}
    version = await _publish(modules, settings, config, known["versions"])
    if known["loaded"] is None:
        await modules.load(name, f"=={version}")
    elif known["loaded"] != version:
        await modules.swap(name, f"=={version}")
    return version


async def _publish(modules: AsyncModules, settings: Settings, config: EncoderConfig, versions: Sequence[str]) -> str:
    """The version that is this module: one that is published already, or the next one."""
    tag = tag_of(config, settings.fusion_replicas, settings.fusion_gpu_share)
    for version in versions:
        if parse_version(version).local == tag:
            return version
    version = f"{_next(versions)}+{tag}"
    with tempfile.TemporaryDirectory() as folder:
        write_module(Path(folder), config, version, settings.fusion_replicas, settings.fusion_gpu_share)
        await modules.publish(Path(folder))
    return version


def _next(versions: Sequence[str]) -> str:
    newest = max((parse_version(version) for version in versions), default=None)
    return FIRST if newest is None else f"{newest.major}.{newest.minor}.{newest.micro + 1}"
