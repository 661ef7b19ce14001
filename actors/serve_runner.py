"""The runner that runs a module's code as a Ray Serve application, which Serve watches and brings back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import suppress
from typing import Any

import ray
import structlog
from ray import exceptions, serve
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from noodle_ray.actors.names import module_app
from noodle_ray.actors.ray_errors import first_line, translate
from noodle_ray.errors import ModuleFailed, NoodleError, Unavailable
from noodle_ray.logs import configure_logs
from noodle_ray.precedence import go_ahead
from noodle_ray.runners.in_process import InProcessRunner
from noodle_ray.runners.runner import Program
from noodle_ray.settings import read_settings

log = structlog.get_logger()

MAX_ONGOING = 10_000
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
HOST_ENDS_S = 5.0
"""Longer than a host whose replica has died takes to end."""

HOST_ANSWERS_S = 5.0
"""How long a replica asks whether its host is there, before it loads anything for it."""

SHUTDOWN_S = 1.0
"""How long a replica lives on when its application is deleted: a host is closed when its calls have ended. Serve would
keep it for half a minute, until load balancers know, of which it has none."""


class ModuleReplica:
    """A replica: it loads the program by itself, so that one that Serve starts anew has it, too."""

    async def __init__(  # type: ignore[misc]
        self, program: Program, application: str, host: Any, gpus: str
    ) -> None:
        """`host` is the handle of the module host that this is for: without it, the application is nobody's.

        `gpus` are those that its allocation holds, as CUDA numbers them: Serve knows nothing of them.
        """
        configure_logs(read_settings().log_level)
        os.environ[VISIBLE_GPUS] = gpus  # before the module imports anything that looks
        self._application, self._host = application, host
        self._runner = InProcessRunner()
        self._error: NoodleError | None = None
        try:
            await self._require_host()
            await self._runner.load(program)
        except NoodleError as error:
            # Raised here, Serve would try it twice again and tell of it in its own words.
            self._error = error
        self._watching = asyncio.create_task(self._end_with_host())

    async def _require_host(self) -> None:
        """Raises Unavailable where the host is gone: Serve starts what died with its node again when that is back."""
        try:
            async with asyncio.timeout(HOST_ANSWERS_S):
                await self._host.ping.remote()
        except exceptions.ActorDiedError:
            raise Unavailable("its host has ended") from None
        except (exceptions.RayError, TimeoutError):
            return  # that tells nothing

    async def _end_with_host(self) -> None:
        """A host that is killed deletes nothing any more: the replica sees to that."""
        while True:
            try:
                await self._host.outlive.remote()
            except exceptions.ActorUnavailableError:
                await asyncio.sleep(SHUTDOWN_S)
            except exceptions.RayError:
                break
        await asyncio.to_thread(delete_application, self._application)
        await self._end()

    async def end(self) -> None:
        """Ends this replica in a moment, in which its application is to be deleted: Serve would start another."""
        self._ending = asyncio.create_task(self._end())

    async def _end(self) -> None:
        await asyncio.sleep(SHUTDOWN_S)
        await asyncio.to_thread(ray.kill, ray.get_runtime_context().current_actor)

    def _loaded(self) -> InProcessRunner:
        if self._error is not None:
            raise self._error
        return self._runner

    async def outlive(self) -> None:
        """Never returns: awaiting it raises when the replica has ended, which tells of its death at once."""
        await asyncio.Event().wait()

    async def loaded(self) -> None:
        """Raises what loading the program raised."""
        self._loaded()

    async def check(self) -> None:
        await self._loaded().check()

    async def call(self, function: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        return await self._loaded().call(function, args, kwargs)

    async def stream(self, function: str, args: Sequence[Any], kwargs: dict[str, Any]) -> AsyncGenerator[Any, None]:
        async for item in self._loaded().stream(function, args, kwargs):
            yield item


class ServeRunner:
    """Runs one program as a Serve application with one replica, on the node of the module host that this is within.

    Serve streams ahead of who reads: a generator does not wait until its next item is asked for.
    """

    def __init__(self) -> None:
        self._module = ""
        self._application = ""
        self._handle: DeploymentHandle[Any] | None = None
        self._life: asyncio.Future[None] | None = None

    async def load(self, program: Program) -> None:
        """Deploys it, and waits until its replica has loaded it. Raises ModuleFailed, InvalidInput, Unavailable."""
        self._module = program.module
        context = ray.get_runtime_context()
        self._application = module_app(program.module, str(context.get_actor_id()))
        # Serve's own calls block: never in an actor's event loop.
        gpus = ",".join(map(str, ray.get_gpu_ids()))
        self._handle = await asyncio.to_thread(_deploy, self._application, program, context.current_actor, gpus)
        await self._await(self._handle.loaded.remote())
        self._life = asyncio.ensure_future(_live(self._handle))
        go_ahead()  # all that this process does is to pass calls on

    async def ended(self) -> None:
        """Returns when the replica has ended, and Serve was told: it looks only every ten seconds, and would start
        another, which takes a processor from what is really to replace it.
        """
        if self._life is not None:
            await asyncio.wait([self._life])
            await asyncio.to_thread(delete_application, self._application)

    async def check(self) -> None:
        """Runs its health check, if it has one. Raises ModuleFailed where it raises, or answers False."""
        await self._await(self._running().check.remote())

    async def call(self, function: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Runs one public function. Raises NotFound, InvalidInput (arguments), ModuleFailed, Unavailable."""
        return await self._await(self._running().call.remote(function, args, kwargs))

    async def stream(self, function: str, args: Sequence[Any], kwargs: dict[str, Any]) -> AsyncGenerator[Any, None]:
        """Runs one public generator; closing it early cancels it. Raises as `call`."""
        items: Any = self._running().options(stream=True).stream.remote(function, args, kwargs)
        is_over = False
        try:
            async for item in items:
                yield item
            is_over = True
        except (exceptions.RayError, RayServeException) as error:
            is_over = True
            raise self._translate(error) from error
        finally:
            if not is_over:
                items.cancel()

    async def export_state(self) -> bytes:
        """Raises ModuleFailed: what Serve runs has no state that could be moved."""
        raise ModuleFailed(self._module, "a module that runs on Serve has no state")

    async def import_state(self, state: bytes, from_version: int) -> None:
        """Raises ModuleFailed, as `export_state`."""
        await self.export_state()

    async def close(self) -> None:
        """Deletes the application, and returns when its replica has ended."""
        handle, self._handle = self._handle, None
        with suppress(exceptions.RayError, RayServeException):
            if handle is not None:
                await handle.end.remote()
        if self._application:
            await asyncio.to_thread(delete_application, self._application)
        if self._life is not None:
            await asyncio.wait([self._life])

    def _running(self) -> DeploymentHandle[Any]:
        if self._handle is None:
            raise Unavailable(f"{self._module} is not deployed")
        return self._handle

    async def _await(self, response: Awaitable[Any]) -> Any:
        try:
            return await response
        except exceptions.RayActorError as error:
            await asyncio.sleep(HOST_ENDS_S)  # its caller is to learn that the host ended, and may then ask another
            raise self._translate(error) from error
        except (exceptions.RayError, RayServeException, NoodleError) as error:
            raise self._translate(error) from error

    def _translate(self, error: Exception) -> Exception:
        """Ours as itself; a dead replica, or what cannot be sent, is the module's failure."""
        translated = translate(error)
        if isinstance(translated, NoodleError) and not isinstance(translated, Unavailable):
            return translated
        return ModuleFailed(self._module, f"its replica did not answer: {first_line(error)}", str(error))


def delete_application(name: str) -> None:
    """Has Serve delete an application, without waiting for that; nothing happens where there is none."""
    try:
        serve.delete(name, _blocking=False)
    except (exceptions.RayError, RayServeException) as error:
        log.warning("application_not_deleted", application=name, error=first_line(error))


async def _live(handle: DeploymentHandle[Any]) -> None:
    with suppress(exceptions.RayError, RayServeException):
        await handle.outlive.remote()


def _deploy(application: str, program: Program, host: Any, gpus: str) -> DeploymentHandle[Any]:
    deployment = serve.deployment(
        name="module",
        num_replicas=1,
        max_ongoing_requests=MAX_ONGOING,
        graceful_shutdown_timeout_s=SHUTDOWN_S,
        graceful_shutdown_wait_loop_s=SHUTDOWN_S / 10,
        # The program's folders are on this node; what the module holds, its host's allocation holds.
        ray_actor_options={"num_cpus": 0, "resources": {f"node:{_address()}": 0.001}},
    )(ModuleReplica)
    try:
        handle: DeploymentHandle[Any] = serve.run(
            deployment.bind(program, application, host, gpus), name=application, route_prefix=None
        )
    except (RuntimeError, TimeoutError, RayServeException) as error:
        raise Unavailable(f"Serve does not run {program.module}: {first_line(error)}") from error
    return handle


def _address() -> str:
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return address
