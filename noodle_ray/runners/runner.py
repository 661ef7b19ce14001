"""The port behind which a module's code runs, wherever that is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Program:
    """What a runner is given: a module, unpacked and verified.

    `folders` are put on the import path, those of what it depends on first, its own last. `health_check` names a
    function of the entry point; `vendor` says that each folder may have packages of its own in a folder "vendor".
    """

    module: str
    folders: tuple[Path, ...]
    entry_point: str
    health_check: str | None = None
    vendor: bool = False


class Runner(Protocol):
    """Runs one program.

    What the module's code raises, its exit or its death comes as ModuleFailed. State is bytes that only the module's
    own code reads: they are kept and moved, and never unpacked, by anybody else.
    """

    async def load(self, program: Program) -> None:
        """Imports it and makes the entry point ready. Raises ModuleFailed, InvalidInput."""
        ...

    async def check(self) -> None:
        """Runs its health check, if it has one. Raises ModuleFailed where it raises, or answers False."""
        ...

    async def call(self, function: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Runs one public function. Raises NotFound, InvalidInput (arguments), ModuleFailed."""
        ...

    def stream(self, function: str, args: Sequence[Any], kwargs: dict[str, Any]) -> AsyncGenerator[Any, None]:
        """Runs one public generator, item by item: it goes on only when the next item is asked for.

        Closing what this gives closes the generator.

        Raises as `call`, also where the function gives no generator.
        """
        ...

    async def export_state(self) -> bytes:
        """What the entry point's `export_state` gives, packed. Raises ModuleFailed."""
        ...

    async def import_state(self, state: bytes, from_version: int) -> None:
        """Has the entry point's `import_state` take what some runner exported, which has this schema version.

        Raises ModuleFailed.
        """
        ...

    async def ended(self) -> None:
        """Returns when the process that runs the code has ended by itself; never where that is the caller's own."""
        ...

    async def close(self) -> None:
        """Ends it. What still runs is cut off."""
        ...
