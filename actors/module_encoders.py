"""The fusion engine's encoders: modules that the registry has loaded, called like any other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import ray

from noodle_ray.actors import names
from noodle_ray.actors.module_calls import ModuleCaller
from noodle_ray.errors import NoodleError, Unavailable
from noodle_ray.fusion.ports import Placed
from noodle_ray.fusion.reading import Reading
from noodle_ray.modules.call_route import CallTarget

FIRST_LOOK_UP_S = 10.0
LOOK_UP_S = 0.05
"""How long a request waits to hear where a modality is read now: the first time, and when that was known before."""


class ModuleEncoders:
    """The port `Encoders` over loaded modules. `module_of` names the module that reads a modality."""

    def __init__(self, module_of: Callable[[str], str]) -> None:
        self._module_of = module_of
        self._caller: ModuleCaller | None = None
        self._seen: set[str] = set()

    async def versions(self, modalities: Sequence[str]) -> dict[str, str]:
        found = await asyncio.gather(*map(self._version, modalities))
        return {modality: version for modality, version in zip(modalities, found, strict=True) if version}

    async def _version(self, modality: str) -> str:
        try:
            async with asyncio.timeout(LOOK_UP_S if modality in self._seen else FIRST_LOOK_UP_S):
                version = await self._calls().version(self._module_of(modality))
        except (NoodleError, TimeoutError):  # not loaded, or between two hosts: this answer does without it
            return ""
        self._seen.add(modality)
        return version

    async def read(
        self, modality: str, version: str, items: Sequence[Any], texts: tuple[str, ...], within_s: float
    ) -> Sequence[Reading]:
        readings: Sequence[Reading] = await self._ask(modality, "read", version, tuple(items), texts, within_s)
        return readings

    async def place(self, version: str, texts: tuple[str, ...], within_s: float) -> Placed:
        placed: Placed = await self._ask("text", "place", version, texts, within_s)
        return placed

    async def _ask(self, modality: str, function: str, version: str, *args: Any) -> Any:
        target = CallTarget(self._module_of(modality), function, version=f"=={version}")
        try:
            answer = await self._calls().call(target, args, {})
        except NoodleError as error:
            raise Unavailable(f"the {modality} encoder does not answer: {error.message}") from error
        if isinstance(answer, NoodleError):
            raise answer
        return answer

    def _calls(self) -> ModuleCaller:
        if self._caller is None:
            self._caller = ModuleCaller(ray.get_actor(names.MODULE_REGISTRY, names.NAMESPACE))
        return self._caller
