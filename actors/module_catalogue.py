"""The module registry as fusion's catalogue: what there is to be found, and the source of it."""

from __future__ import annotations

import structlog

from noodle_ray.actors import names
from noodle_ray.errors import CorruptData, NotFound
from noodle_ray.fusion.catalogue import Listed, Listing
from noodle_ray.modules.archive import read_entries
from noodle_ray.modules.release import Release
from noodle_ray.modules.signatures import source_of

log = structlog.get_logger("noodle.fusion")


def listed(release: Release) -> Listed:
    offers = tuple(function.text() for function in release.functions or () if function.certain)
    return Listed(release.name, release.manifest.version, release.manifest.description, offers)


def entry_source(archive: bytes, entry_point: str) -> str:
    """The source of a packed module's entry point; "" where it has none of its own."""
    source = source_of(read_entries(archive), entry_point.partition(":")[0])
    return source.decode("utf-8", "replace") if source is not None else ""


class ModuleCatalogue:
    """The port `Catalogue` over the registry. Made anywhere, and connected by the first use."""

    def __init__(self) -> None:
        # Here, because the registry itself uses the functions above.
        from noodle_ray.actors.ports import NamedActor

        self._registry = NamedActor(names.MODULE_REGISTRY)

    async def listed(self, known: int) -> Listing | None:
        listing: Listing | None = await self._registry.ask_again("listing", known)
        return listing

    async def code(self, name: str, version: str) -> str:
        try:
            source: str = await self._registry.ask_again("source", name, version)
        except (NotFound, CorruptData) as error:  # it is found by its description, then
            log.warning("no source of a module", module=name, version=version, error=error.message)
            return ""
        return source
