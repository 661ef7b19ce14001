"""Whether a system is whole, as its gateways tell it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any

from noodle_ray.entry.bench.chaos.probes import CANDIDATES, FUSION, NODES, TEXTS, Call
from noodle_ray.entry.http_client import GatewayClient
from noodle_ray.errors import NoodleError

ANSWER_S, FIRST_S = 1.8, 0.8
"""A little less than the watcher waits, so that the second gateway is asked where the first hangs."""


class GatewayWholeness:
    """A `Wholeness` over HTTP. encoders: the modules that must be loaded; the text encoder must also be of use."""

    def __init__(
        self, every: GatewayClient, each: dict[str, GatewayClient], encoders: Sequence[str], call: Call
    ) -> None:
        self._every = every
        self._each = each
        self._encoders = tuple(encoders)
        self._call = call
        self._number = count()

    async def alive_nodes(self) -> int:
        nodes = (await self._every.ask("GET", NODES)).result()
        return sum(node["state"] == "alive" for node in nodes)

    async def unready_encoders(self) -> Sequence[str]:
        modules = (await self._every.ask("GET", "/api/modules")).result()
        loaded = {module["name"] for module in modules if module["loaded"]}
        unready = [name for name in self._encoders if name not in loaded]
        return unready if await self._understands_text() else [*unready, "text"]

    async def is_healthy(self, address: str) -> bool:
        return (await self._each[address].ask("GET", "/healthz", repeatable=False)).status == 200

    async def module_answers(self) -> bool:
        number = next(self._number)
        body = {"function": self._call.function, "args": [number]}
        result = await self._posted(f"/api/modules/{self._call.module}/call", body)
        return bool(result["result"] == number)

    async def _understands_text(self) -> bool:
        """Of another text each time: one that was read before is remembered without the encoder."""
        number = next(self._number)
        body = {"text": f"{TEXTS[number % len(TEXTS)]}, {number}", "candidates": list(CANDIDATES)}
        try:
            return "text" in (await self._posted(FUSION, body))["modalities_used"]
        except NoodleError:
            return False

    async def _posted(self, path: str, body: Any) -> Any:
        return (await self._every.ask("POST", path, body, repeatable=True)).result()


@asynccontextmanager
async def gateway_wholeness(
    addresses: Sequence[str], token: str, encoders: Sequence[str] = (), call: Call | None = None
) -> AsyncIterator[GatewayWholeness]:
    """Asks the gateways at these addresses, as long as the block lasts. Raises InvalidInput without any."""
    async with AsyncExitStack() as stack:
        clients = [
            GatewayClient(names, token, ANSWER_S, FIRST_S) for names in (addresses, *([one] for one in addresses))
        ]
        every, *each = [await stack.enter_async_context(client) for client in clients]
        yield GatewayWholeness(every, dict(zip(addresses, each, strict=True)), encoders, call or Call())
