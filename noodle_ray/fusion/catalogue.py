"""The module registry as something to be found: what is published, and what of it an index has yet to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from noodle_ray.fusion import limits
from noodle_ray.fusion.index_messages import NewEntry
from noodle_ray.fusion.stored_index import StoredIndex


@dataclass(frozen=True, slots=True)
class Listed:
    """The newest version of a module. `offers`: the signatures of its functions, where they are known."""

    name: str
    version: str
    description: str = ""
    offers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Listing:
    """Every module, as of a revision: another number after every change."""

    revision: int
    modules: tuple[Listed, ...]


class Catalogue(Protocol):
    """What the index of modules needs of the registry. Raises Unavailable."""

    async def listed(self, known: int) -> Listing | None:
        """What is published now; None where that is the revision `known` still."""
        ...

    async def code(self, name: str, version: str) -> str:
        """The source of the module's entry point; "" where there is none to be had."""
        ...


@dataclass(frozen=True, slots=True)
class Outdated:
    """What an index of modules has to do to be that of a listing."""

    gone: tuple[str, ...]
    fresh: tuple[Listed, ...]


def outdated(index: StoredIndex, listing: Listing, space: str) -> Outdated:
    """Compares the index with a listing. One that lies in another space than `space` has everything to read anew."""
    wanted = {module.name: module for module in listing.modules}
    usable = index.entries if not index.space or index.space == space else []
    known = {entry.id: entry.meta.get("version") for entry in usable}
    fresh = tuple(module for name, module in wanted.items() if known.get(name) != module.version)
    return Outdated(
        tuple(entry.id for entry in index.entries if entry.id not in known or entry.id not in wanted), fresh
    )


def entries_of(modules: Sequence[Listed], codes: Mapping[str, str]) -> tuple[NewEntry, ...]:
    """The modules as entries; `codes`: the source of their entry points, by name."""
    return tuple(_entry(module, codes.get(module.name, "")) for module in modules)


def _entry(module: Listed, code: str) -> NewEntry:
    told = f"{module.name.replace('-', ' ')}: {module.description}" if module.description else module.name
    text = "\n".join((told, *module.offers))[: limits.TEXT_CHARACTERS].replace("\0", " ")
    source = code[: limits.CODE_CHARACTERS]
    has_code = source.strip() and "\0" not in source
    return NewEntry(
        name=module.name,
        text=text.encode("utf-8", "replace").decode(),
        code=source.encode("utf-8", "replace").decode() if has_code else (),
        meta={"version": module.version, "description": module.description[:1000]},
    )
