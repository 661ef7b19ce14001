"""Calls to loaded modules: straight to a host, by a table of routes that the registry sends whenever it changes."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import ray
from ray import exceptions

from noodle_ray.actors.ray_errors import first_line, translate
from noodle_ray.errors import CallInterrupted, ModuleFailed, NoodleError, Unavailable
from noodle_ray.modules.call_route import CallTarget, Endpoint, Retired, Routes
from noodle_ray.modules.manifest import normalise_name
from noodle_ray.modules.versions import VersionConstraint

MAX_ROUTES = 20
"""Times that one call is sent anew because its host was replaced before it ran."""

AGAIN_S = 0.02
"""After how long a call looks again for a host where the table has none for it."""

REGISTRY_ATTEMPTS = 25
REGISTRY_WAIT_S = 0.2
"""How often, and after how long, a registry that is being restarted is asked again: five seconds in all."""

AHEAD = 2
"""Items of a stream that a host makes before they are taken."""

_normalise = lru_cache(maxsize=1000)(normalise_name)
_read_pin = lru_cache(maxsize=1000)(partial(VersionConstraint.parse, field="version"))


@dataclass(slots=True)
class _Lane:
    """The calls of one session: one runs, `users` counts it and those that wait."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class ModuleCaller:
    """Calls functions of loaded modules. Belongs to one event loop at a time."""

    def __init__(self, registry: Any) -> None:
        """`registry` is the handle of the module registry."""
        self._registry = registry
        self._routes: dict[str, Routes] = {}
        self._gone: dict[str, set[int]] = {}
        self._outstanding: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self._lanes: dict[tuple[str, str], _Lane] = {}
        self._asking: dict[str, Any] = {}
        self._watched: asyncio.AbstractEventLoop | None = None
        self._watch_number = 0

    async def call(self, target: CallTarget, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What the function gives. It runs once or, where its host ends meanwhile, perhaps not: CallInterrupted.

        One that its module declares idempotent is then sent again. Raises NotFound (module, function, version),
        InvalidInput (arguments), ModuleFailed, CallInterrupted, or Unavailable.
        """
        name = _normalise(target.module)
        if target.session is None:
            return await self._call(name, target, list(args), dict(kwargs))
        async with self._lane(name, target.session):
            return await self._call(name, target, list(args), dict(kwargs))

    async def _call(self, name: str, target: CallTarget, args: list[Any], kwargs: dict[str, Any]) -> Any:
        for _ in range(MAX_ROUTES):
            endpoint = await self._find(name, target)
            try:
                with self._counted(name, endpoint):
                    answer = await endpoint.host.call.remote(target.function, args, kwargs, target.version is not None)
            except exceptions.RayActorError as error:
                self._avoid(name, endpoint)
                if target.function not in endpoint.idempotent:
                    raise _interrupted(name, target, error) from error
            except exceptions.RayError as error:
                raise _of_the_module(error, name) from error
            else:
                if not isinstance(answer, Retired):
                    return answer
                self._avoid(name, endpoint)
        raise Unavailable(f"{name} was replaced {MAX_ROUTES} times while this call tried to reach it")

    async def version(self, module: str) -> str:
        """The version that a call would go to now: of a tried one as often as calls do. Raises as `call`."""
        name = _normalise(module)
        return (await self._find(name, CallTarget(name, ""))).version

    async def stream(
        self, target: CallTarget, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """What the generator yields, as it is made. Raises as `call`; what came before an interruption has come."""
        name = _normalise(target.module)
        lane = self._lane(name, target.session) if target.session is not None else nullcontext()
        async with lane, aclosing(self._stream(name, target, list(args), dict(kwargs))) as items:
            async for item in items:
                yield item

    async def _stream(
        self, name: str, target: CallTarget, args: list[Any], kwargs: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        for _ in range(MAX_ROUTES):
            endpoint, retired = await self._find(name, target), False
            async with aclosing(self._items(name, target, endpoint, args, kwargs)) as items:
                async for item in items:
                    retired = isinstance(item, Retired)
                    if not retired:
                        yield item
            if not retired:
                return
            self._avoid(name, endpoint)
        raise Unavailable(f"{name} was replaced {MAX_ROUTES} times while this call tried to reach it")

    async def _items(
        self, name: str, target: CallTarget, endpoint: Endpoint, args: list[Any], kwargs: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """What one host yields; Retired where another is to be asked from the beginning."""
        method = endpoint.host.stream.options(num_returns="streaming", _generator_backpressure_num_objects=AHEAD)
        references, begun = method.remote(target.function, args, kwargs, target.version is not None), False
        try:
            with self._counted(name, endpoint):
                async for reference in references:
                    yield await reference
                    begun = True
        except exceptions.RayActorError as error:
            self._avoid(name, endpoint)
            if begun or target.function not in endpoint.idempotent:
                raise _interrupted(name, target, error) from error
            yield Retired()
        except exceptions.RayError as error:
            raise _of_the_module(error, name) from error
        finally:
            ray.cancel(references)  # whoever stops reading lets it end: its host may have to wait for that

    # -- finding a host

    async def _find(self, name: str, target: CallTarget) -> Endpoint:
        pin = _read_pin(target.version) if target.version is not None else None
        routes = self._routes.get(name)
        for _ in range(MAX_ROUTES):
            if routes is None:
                routes = await self._ask(name)
            if self._watched is not asyncio.get_running_loop():
                self._watch()
            endpoint = routes.choose(self._outstanding[name], target.session, pin, self._gone.get(name, ()))
            if endpoint is not None:
                return endpoint
            await asyncio.sleep(AGAIN_S if pin is not None else 0)
            routes = None
        raise Unavailable(f"{name} has no host that takes this call")

    @contextmanager
    def _counted(self, name: str, endpoint: Endpoint) -> Iterator[None]:
        outstanding = self._outstanding[name]
        outstanding[endpoint.epoch] += 1
        try:
            yield
        finally:
            outstanding[endpoint.epoch] -= 1
            if not outstanding[endpoint.epoch]:
                del outstanding[endpoint.epoch]

    @asynccontextmanager
    async def _lane(self, name: str, session: str) -> AsyncIterator[None]:
        lane = self._lanes.setdefault((name, session), _Lane())
        lane.users += 1
        try:
            async with lane.lock:  # it lets waiters in by the order of their coming
                yield
        finally:
            lane.users -= 1
            if not lane.users:
                self._lanes.pop((name, session), None)

    def _avoid(self, name: str, endpoint: Endpoint) -> None:
        """The host takes no calls any more: until the next table says otherwise, none is sent there."""
        routes = self._routes.get(name)
        if routes is not None and endpoint in routes.all():
            self._gone.setdefault(name, set()).add(endpoint.epoch)

    async def _ask(self, name: str) -> Routes:
        """The registry's table, once a host serves that is not known to be gone; asked for once by all who wait."""
        for _ in range(REGISTRY_ATTEMPTS):
            try:
                routes = await self._answer(name)
            except exceptions.RayActorError:
                await asyncio.sleep(REGISTRY_WAIT_S)  # Ray restarts it
            except exceptions.RayError as error:
                raise translate(error) from error
            else:
                self._take_in({name: routes})
                return self._routes.get(name, routes)
        raise Unavailable("the module registry does not answer")

    async def _answer(self, name: str) -> Routes:
        """What the registry says. Who gives up waiting leaves the question to the next: it would have another yet."""
        reference = self._asking.get(name)
        if reference is None:
            reference = self._asking[name] = self._registry.routes.remote(name, tuple(self._gone.get(name, ())))
            reference.future().add_done_callback(lambda _: self._asked(name, reference))  # in a thread of Ray's
        try:
            routes: Routes = await reference
        except exceptions.RayError:
            self._asked(name, reference)
            raise
        self._asked(name, reference)
        return routes

    def _asked(self, name: str, reference: Any) -> None:
        """The next one who wants to know asks anew."""
        if self._asking.get(name) is reference:
            self._asking.pop(name, None)

    # -- following the registry

    def _take_in(self, tables: Mapping[str, Routes | None]) -> None:
        for name, routes in tables.items():
            before = self._routes.get(name)
            if routes is None:
                self._routes.pop(name, None)
                self._gone.pop(name, None)
            elif before is None or routes.number > before.number:
                self._routes[name] = routes
                self._gone.pop(name, None)
                if before is None:
                    self._watched = None  # the question that is under way does not ask for this one

    def _watch(self) -> None:
        """Has the registry send whatever changes of the tables that are known here.

        By callbacks, not by a task: nothing is left to await when the caller's event loop ends.
        """
        self._watched = loop = asyncio.get_running_loop()
        self._watch_number += 1
        known = {name: routes.number for name, routes in self._routes.items()}
        heard = partial(self._heard, loop, self._watch_number)
        self._registry.news.remote(known).future().add_done_callback(heard)

    def _heard(self, loop: asyncio.AbstractEventLoop, number: int, answer: Future[Any]) -> None:
        """In a thread of Ray's."""
        try:
            tables, wait_s = answer.result(), 0.0
        except Exception:  # the registry is being restarted, or Ray ends
            tables, wait_s = {}, REGISTRY_WAIT_S
        try:
            loop.call_soon_threadsafe(self._go_on_watching, loop, number, tables, wait_s)
        except RuntimeError:  # the loop has ended: the next call, in another, watches again
            if self._watched is loop:
                self._watched = None

    def _go_on_watching(
        self, loop: asyncio.AbstractEventLoop, number: int, tables: Mapping[str, Routes | None], wait_s: float
    ) -> None:
        self._take_in(tables)
        if number == self._watch_number and self._routes:
            loop.call_later(wait_s, self._watch_unless_others_do, number)
        elif number == self._watch_number:
            self._watched = None

    def _watch_unless_others_do(self, number: int) -> None:
        if number == self._watch_number:
            self._watch()


def _interrupted(name: str, target: CallTarget, error: exceptions.RayActorError) -> CallInterrupted:
    # It may have run: to send it again could make it run twice, and only its module knows whether that matters.
    return CallInterrupted(name, target.function, f"its host ended: {first_line(error)}")


def _of_the_module(error: exceptions.RayError, name: str) -> NoodleError:
    """What the host raised; what it could not even send (a result that cannot be pickled) is the module's failure."""
    translated = translate(error)
    if isinstance(translated, NoodleError):
        return translated
    cause = error.cause if isinstance(error, exceptions.RayTaskError) else error
    return ModuleFailed(name, f"{type(cause).__name__}: {first_line(cause)}", str(error))
