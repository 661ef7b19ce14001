"""Calls to loaded modules: straight to the host, with the registry asked only where the route is not known."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from ray import exceptions

from noodle_ray.actors.ray_errors import first_line, translate
from noodle_ray.errors import CallInterrupted, ModuleFailed, NoodleError, Unavailable
from noodle_ray.modules.call_route import Retired, Route
from noodle_ray.modules.manifest import normalise_name

MAX_ROUTES = 20
"""Times that one call is sent anew because its host was replaced before it ran."""

REGISTRY_ATTEMPTS = 25
REGISTRY_WAIT_S = 0.2
"""How often, and after how long, a registry that is being restarted is asked again: five seconds in all."""


class ModuleCaller:
    """Calls functions of loaded modules. It remembers routes, and forgets one when its host ends or was replaced."""

    def __init__(self, registry: Any) -> None:
        """`registry` is the handle of the module registry."""
        self._registry = registry
        self._routes: dict[str, Route] = {}

    async def call(self, name: str, function: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What the function gives. A call runs once or, where its host ends meanwhile, perhaps not: CallInterrupted.

        Raises NotFound (module, function), InvalidInput (arguments), ModuleFailed, CallInterrupted, or Unavailable.
        """
        name = normalise_name(name)
        for _ in range(MAX_ROUTES):
            route = self._routes.get(name) or await self._find_route(name)
            answer = await self._send(route, function, args, kwargs)
            if not isinstance(answer, Retired):
                return answer
            self._forget(route)
        raise Unavailable(f"{name} was replaced {MAX_ROUTES} times while this call tried to reach it")

    async def _send(self, route: Route, function: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        try:
            return await route.host.call.remote(function, list(args), dict(kwargs))
        except exceptions.RayActorError as error:
            self._forget(route)
            # It may have run: to send it again could make it run twice, and only the caller knows whether that matters.
            raise CallInterrupted(route.module, function, f"its host ended: {first_line(error)}") from error
        except exceptions.RayError as error:
            raise _of_the_module(error, route) from error

    async def _find_route(self, name: str) -> Route:
        for _ in range(REGISTRY_ATTEMPTS):
            try:
                route: Route = await self._registry.route.remote(name)
            except exceptions.RayActorError:
                await asyncio.sleep(REGISTRY_WAIT_S)  # Ray restarts it
            except exceptions.RayError as error:
                raise translate(error) from error
            else:
                self._remember(route)
                return route
        raise Unavailable("the module registry does not answer")

    def _remember(self, route: Route) -> None:
        self._routes[route.module] = route
        # A plain callback, not a task: nothing is left to await when the caller's event loop ends.
        route.host.outlive.remote().future().add_done_callback(lambda _: self._forget(route))

    def _forget(self, route: Route) -> None:
        if self._routes.get(route.module) is route:
            self._routes.pop(route.module, None)


def _of_the_module(error: exceptions.RayError, route: Route) -> NoodleError:
    """What the host raised; what it could not even send (a result that cannot be pickled) is the module's failure."""
    translated = translate(error)
    if isinstance(translated, NoodleError):
        return translated
    cause = error.cause if isinstance(error, exceptions.RayTaskError) else error
    return ModuleFailed(route.module, f"{type(cause).__name__}: {first_line(cause)}", str(error))
