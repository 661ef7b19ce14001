"""The health check: open to everybody, so it says little and asks the cluster at most once a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Literal

import structlog
from fastapi import APIRouter, Request, Response

from noodle_ray.base_model import Model
from noodle_ray.errors import NoodleError
from noodle_ray.gateway.ports import Ports

log = structlog.get_logger()
router = APIRouter(tags=["operation"])

ANSWER_TIMEOUT_S = 2.0
KEPT_FOR_S = 1.0


class Health(Model):
    """Whether the gateway reaches what it stands for.

    `away`: "store" where the cluster runs but cannot keep anything: what is read and called is answered, changes wait.
    """

    status: Literal["ok", "degraded"]
    away: tuple[Literal["store"], ...] = ()


OK, DEGRADED = Health(status="ok"), Health(status="degraded")


class HealthCheck:
    """Asks the ports, and keeps the answer for a second: an open route must not become a way to load the cluster."""

    def __init__(self, ports: Ports, clock: Callable[[], float] = time.monotonic) -> None:
        self._ports = ports
        self._clock = clock
        self._lock = asyncio.Lock()
        self._kept_until = float("-inf")
        self._kept = DEGRADED

    async def health(self) -> Health:
        async with self._lock:
            if self._clock() >= self._kept_until:
                self._kept = await self._ask()
                self._kept_until = self._clock() + KEPT_FOR_S
            return self._kept

    async def _ask(self) -> Health:
        questions = (self._ports.nodes.nodes(), self._ports.modules.modules(), self._ports.services.services(None))
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                store, *_ = await asyncio.gather(self._ports.nodes.store_health(), *questions)
        except (NoodleError, TimeoutError) as error:
            log.warning("the cluster does not answer as it should", error=str(error) or "timed out")
            return DEGRADED
        if store.is_away:
            log.warning("the store is away", away_s=store.away_s, error=store.error)
            return Health(status="degraded", away=("store",))
        return OK


@router.head("/healthz", include_in_schema=False)
@router.get(
    "/healthz",
    summary="Whether the gateway works",
    responses={503: {"model": Health, "description": "A component does not answer; the gateway itself does."}},
    response_model_exclude_defaults=True,
)
async def read_health(request: Request, response: Response) -> Health:
    """The only route without a token. An answer may be a second old."""
    check: HealthCheck = request.app.state.health
    found = await check.health()
    response.status_code = 200 if found.status == "ok" else 503
    return found
