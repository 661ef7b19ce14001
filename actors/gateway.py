"""The gateway as a Ray Serve deployment: the core's ASGI application, with its ports wired to actors and apps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from ray import serve
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from noodle_ray.actors.ports import cluster_ports
from noodle_ray.gateway.app import build_app
from noodle_ray.logs import configure_logs
from noodle_ray.nodes.membership import GATEWAY_LABEL
from noodle_ray.precedence import go_ahead
from noodle_ray.settings import Settings

CPUS = 0.1
"""What the ledger counts for a replica: it waits for others most of its time."""


class WithoutOwnRequestId:
    """Takes our X-Request-ID off an answer: Serve hands us the request's id and puts it on the answer itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = [value for name, value in scope.get("headers", ()) if name == b"x-request-id"]

        async def send_once(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", ())
                kept = [(name, value) for name, value in headers if name != b"x-request-id" or value not in given]
                message = {**message, "headers": kept}
            await send(message)

        await self._app(scope, receive, send_once)


def gateway_application(settings: Settings, read_token: Callable[[], str], labelled: bool = False) -> serve.Application:
    """The application that serves every route. `read_token` runs in the replica, so that no token travels.

    labelled: its replicas are on hosts that have GATEWAY_LABEL, else on any.
    """

    def build() -> FastAPI:
        configure_logs(settings.log_level)
        app = build_app(cluster_ports(settings), settings, read_token())
        app.add_middleware(WithoutOwnRequestId)
        go_ahead()
        return app

    gateway: Any = serve.ingress(build)()
    deployment: Any = serve.deployment(
        name="Gateway",
        ray_actor_options={"num_cpus": CPUS, **({"label_selector": {GATEWAY_LABEL: "yes"}} if labelled else {})},
        max_ongoing_requests=256,
        num_replicas=settings.gateway_replicas,
        max_replicas_per_node=1,
    )
    application: serve.Application = deployment(gateway).bind()
    return application
