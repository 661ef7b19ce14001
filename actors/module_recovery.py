"""What a new module registry does first: finds the hosts that one before it left, and goes on from there."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import ray
import structlog

from noodle_ray.actors.host_starter import OWNER
from noodle_ray.actors.loaded_module import Held, Module
from noodle_ray.actors.module_loader import ModuleLoader
from noodle_ray.actors.names import HOST_NAMESPACES
from noodle_ray.actors.ray_errors import await_ref
from noodle_ray.actors.registry_book import RegistryBook
from noodle_ray.actors.warm_hosts import OWN, Host, kill_host, reach_host
from noodle_ray.errors import Unavailable
from noodle_ray.modules.load import HostRecord, Load, RevisionRecord
from noodle_ray.modules.ports import Allocator
from noodle_ray.modules.registry import ChangeEnded
from noodle_ray.modules.release import Lock
from noodle_ray.modules.scaling import Scaler
from noodle_ray.modules.swap_messages import Recovered

log = structlog.get_logger()

PING_TIMEOUT_S = 5.0
RESTARTED = "the registry was restarted meanwhile"


async def recover(loader: ModuleLoader, book: RegistryBook, allocator: Allocator) -> None:
    """Routes to the hosts that serve and has missing ones started; empties those of changes that were under way."""
    living = await _living_hosts()
    began_at = time.time()
    for load in book.core.loads():
        await _end_changes(book, load)
        try:
            await _recover_load(loader, book, load, living)
        except Exception:
            # One module that cannot be brought back is no reason to do without all others.
            log.exception("module_not_recovered", module=load.name)
    for left in living.values():
        if left.module:
            kill_host(left.host.handle)
        else:
            loader.warm.adopt(left.host)
    loader.spawn(_release_orphans(loader, book, allocator, began_at))


@dataclass(frozen=True, slots=True)
class Living:
    """A host that answers, the module that it has in it, if any, and whether that was found well once."""

    host: Host
    module: str
    is_ready: bool


async def _living_hosts() -> dict[str, Living]:
    """The module hosts that answer, by the namespace of their actor."""
    actors = await asyncio.to_thread(ray.util.list_named_actors, all_namespaces=True)
    hosts = [entry for entry in actors if entry["namespace"].startswith(HOST_NAMESPACES)]
    found = await asyncio.gather(*(_find_host(entry["name"], entry["namespace"]) for entry in hosts))
    return {living.host.namespace: living for living in found if living is not None}


async def _find_host(name: str, namespace: str) -> Living | None:
    try:
        handle = ray.get_actor(name, namespace)
    except ValueError:
        return None
    try:
        async with asyncio.timeout(PING_TIMEOUT_S):
            answer = await await_ref(handle.ping.remote())
            host = await reach_host(namespace, handle, warm=True, own=name == OWN)
            return Living(host, answer["module"], answer["ready"])
    except Exception as error:
        # Whatever ails it: beside its replacement it would live on, and answer callers who know it.
        log.warning("host_does_not_answer", host=namespace, error=str(error))
        kill_host(handle)
        return None


async def _end_changes(book: RegistryBook, load: Load) -> None:
    """What was under way comes to nothing, and whoever asks later is told why."""
    for change in load.changes:
        if change.outcome == "under way":
            ended = change.model_copy(update={"outcome": "rolled back", "why": RESTARTED})
            await book.keep_for_sure(ChangeEnded(load.name, ended))


async def _recover_load(loader: ModuleLoader, book: RegistryBook, load: Load, living: dict[str, Living]) -> None:
    module = loader.modules[load.name] = Module(loader.new_machine(load.name))
    serving = load.serving
    if serving is not None:
        module.revisions[serving.number] = serving
        module.scaler = Scaler(book.core.release(load.name, serving.version).manifest.replicas)
    ends = set()
    for record in load.hosts:
        found = living.pop(record.actor, None)
        held = module.held[record.epoch] = _held(book, load, record)
        if found is not None:
            held.host = found.host
            loader.follow(module, record.epoch, found.host)
        if found is None or not found.is_ready:
            ends.add(record.epoch)
    event = _event(book, load, ends)
    await loader.handle(module, event)
    for epoch in event.ready:
        loader.begin_keeping(module, epoch, module.held[epoch])


def _held(book: RegistryBook, load: Load, record: HostRecord) -> Held:
    """What a host holds. Of a revision that does not serve the lock is not needed any more."""
    revision = load.serving
    if revision is None or revision.number != record.revision:
        lock = Lock(requirements={}, modules=())
        revision = RevisionRecord(number=record.revision, version=record.version, lock=lock)
    manifest = book.core.release(load.name, record.version).manifest
    return Held(revision, manifest, node_id=record.node_id, allocation_id=record.allocation_id, recorded=True)


def _event(book: RegistryBook, load: Load, ends: set[int]) -> Recovered:
    serving = load.serving
    manifest = book.core.release(load.name, serving.version).manifest if serving is not None else None
    ready = {record.epoch for record in load.serving_hosts()} - ends
    return Recovered(
        revision=serving.number if serving is not None else None,
        version=serving.version if serving is not None else "",
        stateful=manifest is not None and manifest.state is not None,
        replicas=manifest.replicas.min if manifest is not None else 1,
        most=manifest.replicas.max if manifest is not None else 1,
        ready=tuple(sorted(ready)),
        others=tuple(sorted({record.epoch for record in load.hosts} - ready - ends)),
        dead=tuple(sorted(ends)),
        next_number=load.next_number,
    )


async def _release_orphans(loader: ModuleLoader, book: RegistryBook, allocator: Allocator, began_at: float) -> None:
    """Frees what a registry before this one got for a host, and died before it could note that down."""
    try:
        allocations = await allocator.allocations()
    except Unavailable as error:
        log.warning("orphans_not_looked_for", error=str(error))
        return
    known = {host.allocation_id for load in book.core.loads() for host in load.hosts}
    known |= {held.allocation_id for module in loader.modules.values() for held in module.held.values()}
    for allocation in allocations:
        is_old = allocation.created_at < began_at
        if allocation.owner.startswith(OWNER) and is_old and allocation.id not in known:
            await loader.release(allocation.id)
