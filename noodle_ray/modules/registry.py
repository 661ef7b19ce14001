"""The registry: which versions are published, which modules are loaded on which hosts, and what must be kept of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

from noodle_ray.base_model import Model
from noodle_ray.errors import Conflict, CorruptData, Incompatible, InvalidInput, LimitReached, NotFound
from noodle_ray.modules.compatibility import breaking_changes, interface_changes, state_changes, summary
from noodle_ray.modules.entry_point import STATE_METHODS
from noodle_ray.modules.load import HostRecord, KeptState, Load, ModuleChange, RevisionRecord
from noodle_ray.modules.manifest import Manifest, normalise_name
from noodle_ray.modules.release import Lock, Release, release_key
from noodle_ray.modules.signatures import Function
from noodle_ray.modules.versions import compare_versions, parse_version
from noodle_ray.settings import Settings
from noodle_ray.store.changes import Change, Delete, Document, Put

MODULES = "modules"
LOADS = "loads"
STATES = "states"
"""The states of modules are kept, and not held in memory."""

Instruction = Change


@dataclass(frozen=True, slots=True)
class Publish:
    """Someone offers a version."""

    manifest: Manifest
    sha256: str
    size_bytes: int
    at: float
    functions: tuple[Function, ...] | None = None


@dataclass(frozen=True, slots=True)
class Yank:
    """A version must not be chosen any more."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class HostTaken:
    """A host was taken for a revision, for the sake of this change where it is not only a replacement.

    Of one that is known already this is what is known from now on.
    """

    name: str
    host: HostRecord
    change: ModuleChange | None = None


@dataclass(frozen=True, slots=True)
class RevisionRouted:
    """From now on calls of the module go to this revision.

    It goes on from this state, if it was given any; `forgets_state`: and not from what was kept before.
    """

    name: str
    revision: RevisionRecord
    previous: RevisionRecord | None = None
    change: ModuleChange | None = None
    state: KeptState | None = None
    forgets_state: bool = False


@dataclass(frozen=True, slots=True)
class ChangeEnded:
    """A change of a module ended otherwise than by a new route."""

    name: str
    change: ModuleChange


@dataclass(frozen=True, slots=True)
class StateKept:
    """What a module goes on from where its host dies; None forgets it."""

    name: str
    state: KeptState | None


@dataclass(frozen=True, slots=True)
class Unrouted:
    """From now on calls of the module go nowhere: it is being unloaded, which `check_unload` was asked about before."""

    name: str


@dataclass(frozen=True, slots=True)
class HostGone:
    """A host has ended, and what it held is free."""

    name: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """The registry starts, and these rows were kept: key to document, of either table."""

    modules: Mapping[str, Document]
    loads: Mapping[str, Document]


Event = Publish | Yank | HostTaken | RevisionRouted | ChangeEnded | StateKept | Unrouted | HostGone | Recovered


@dataclass
class Registry:
    """Published versions and loaded modules.

    An event goes in through `handle`; what must be kept comes out. A shell that can fail to keep it uses the two
    halves: `decide` changes nothing, and `commit` makes the change once it is kept.
    """

    settings: Settings
    _releases: dict[str, Release] = field(default_factory=dict)
    _loads: dict[str, Load] = field(default_factory=dict)

    def handle(self, event: Event) -> list[Instruction]:
        """Applies one event. Raises NotFound, Conflict, LimitReached or CorruptData, and then nothing has changed."""
        instructions = self.decide(event)
        self.commit(instructions)
        return instructions

    def decide(self, event: Event) -> list[Instruction]:
        """What `handle` would give, without changing anything. Raises as it does."""
        match event:
            case Publish():
                return self._publish(event)
            case Yank():
                return self._yank(self.release(event.name, event.version))
            case HostTaken():
                load = self._loads.get(event.name, Load(name=event.name))
                others = [host for host in load.hosts if host.epoch != event.host.epoch]
                taken = load.model_copy(update={"hosts": (*others, event.host)})
                return [self._keep(taken.with_change(event.change))]
            case RevisionRouted():
                return self._route(event)
            case ChangeEnded():
                return self._end_change(event)
            case StateKept():
                return [_state_change(event.name, event.state)]
            case Unrouted():
                return self._unroute(event.name)
            case HostGone():
                return self._forget(event)
            case Recovered():
                return self._recover(event)
        assert_never(event)

    def commit(self, instructions: list[Instruction]) -> None:
        """Makes the changes that `decide` gave."""
        for change in instructions:
            if change.table == STATES:
                continue
            target: dict[str, Any] = self._releases if change.table == MODULES else self._loads
            if isinstance(change, Delete):
                target.pop(change.key, None)
            else:
                target[change.key] = _read(change.table, change.key, change.document)

    # -- what there is

    def releases(self, name: str | None = None) -> list[Release]:
        """All releases, or those of one module: by name, newest first. Raises NotFound for a name nobody published."""
        releases = sorted(self._releases.values(), key=lambda release: release.version, reverse=True)
        if name is None:
            return sorted(releases, key=lambda release: release.name)
        name = normalise_name(name)
        known = sorted({release.name for release in releases})
        if name not in known:
            raise NotFound("module", name, known[:20])
        return [release for release in releases if release.name == name]

    def release(self, name: str, version: str) -> Release:
        """Raises NotFound, InvalidInput."""
        wanted = parse_version(version)
        releases = self.releases(name)
        for release in releases:
            if release.version == wanted:
                return release
        raise NotFound(
            "version", f"{releases[0].name} {wanted}", [release.manifest.version for release in releases[:20]]
        )

    def loads(self) -> list[Load]:
        """Every loaded module, and every one whose hosts are not all gone, by name."""
        return [self._loads[name] for name in sorted(self._loads)]

    def load(self, name: str) -> Load:
        """Raises NotFound."""
        name = normalise_name(name)
        if name not in self._loads:
            raise NotFound("loaded module", name, sorted(self._loads)[:20])
        return self._loads[name]

    def loaded_versions(self) -> dict[str, str]:
        """The versions of all modules that run, also of those that others brought along; the newest of each."""
        running: dict[str, str] = {}
        for load in self.loads():
            for name, version in load.serving.lock.versions().items() if load.serving is not None else ():
                if name not in running or compare_versions(version, running[name]) > 0:
                    running[name] = version
        return running

    def packages(self, lock: Lock) -> tuple[str, ...]:
        """The Python packages that the modules of a lock need installed, together. Raises NotFound."""
        manifests = [self.release(module.name, module.version).manifest for module in lock.modules]
        return tuple(sorted({package for manifest in manifests for package in manifest.packages}))

    def dependants(self, name: str) -> list[str]:
        """The other loaded modules that were locked with this one, by name."""
        return [
            load.name
            for load in self.loads()
            if load.name != name and load.serving is not None and name in load.serving.lock.versions()
        ]

    def check_unload(self, name: str) -> None:
        """Raises NotFound where it is not loaded, Conflict naming those that need it."""
        load = self.load(name)
        if dependants := self.dependants(load.name):
            raise Conflict(f"{load.name} cannot be unloaded: {', '.join(dependants)} loaded with it and need it")

    def check_swap(self, name: str, version: str) -> None:
        """Raises Incompatible where callers of the loaded version would stumble over the other one; NotFound.

        So does a version that cannot go on from the state of the loaded one, or provides less.
        """
        serving = self.load(name).serving
        if serving is None:
            return
        old, new = self.release(name, serving.version), self.release(name, version)
        changes = [
            *breaking_changes(_for_callers(old), new.functions),
            *state_changes(old.manifest.state, new.manifest.state),
            *interface_changes(old.manifest.provides, new.manifest.provides),
        ]
        if changes:
            told = f"{old.name} {serving.version} → {version} would break what relies on it: {summary(changes)}"
            raise Incompatible(told, changes)

    # -- deciding

    def _publish(self, event: Publish) -> list[Instruction]:
        manifest = event.manifest
        release = Release(
            manifest=manifest,
            sha256=event.sha256,
            size_bytes=event.size_bytes,
            published_at=event.at,
            functions=event.functions,
        )
        before = self._releases.get(release.key)
        if before is not None:
            if before.sha256 != event.sha256:
                raise Conflict(
                    f"{before.name} {before.manifest.version} is published with other content;"
                    " a version never changes, publish a new one"
                )
            return []
        if len(self._releases) >= self.settings.max_modules:
            raise LimitReached("published module versions", self.settings.max_modules, "NOODLE_MAX_MODULES")
        return [Put(MODULES, release.key, release.to_json())]

    def _yank(self, release: Release) -> list[Instruction]:
        if release.yanked:
            return []
        return [Put(MODULES, release.key, release.model_copy(update={"yanked": True}).to_json())]

    def _route(self, event: RevisionRouted) -> list[Instruction]:
        load = self._loads.get(event.name, Load(name=event.name)).with_change(event.change)
        routed = load.model_copy(update={"serving": event.revision, "previous": event.previous})
        changes = event.state is not None or event.forgets_state
        state = [_state_change(event.name, event.state)] if changes else []
        return [self._keep(routed), *state]

    def _end_change(self, event: ChangeEnded) -> list[Instruction]:
        load = self._loads.get(event.name)
        return [self._keep(load.with_change(event.change))] if load is not None else []

    def _unroute(self, name: str) -> list[Instruction]:
        load = self.load(name)
        return [self._keep_or_forget(load.model_copy(update={"serving": None, "previous": None}))]

    def _forget(self, event: HostGone) -> list[Instruction]:
        load = self.load(event.name)
        load.host(event.epoch)
        hosts = tuple(host for host in load.hosts if host.epoch != event.epoch)
        return [self._keep_or_forget(load.model_copy(update={"hosts": hosts}))]

    def _keep_or_forget(self, load: Load) -> Change:
        return self._keep(load) if load.hosts or load.serving is not None else Delete(LOADS, load.name)

    def _keep(self, load: Load) -> Put:
        return Put(LOADS, load.name, load.to_json())

    def _recover(self, event: Recovered) -> list[Instruction]:
        releases = {key: _read(MODULES, key, row) for key, row in event.modules.items()}
        loads = {key: _read(LOADS, key, row) for key, row in event.loads.items()}
        for key, release in releases.items():
            if key != release_key(release.name, release.version):
                raise CorruptData(f"the kept row {key!r} of modules is that of {release.key!r}")
        self._releases, self._loads = releases, loads
        return []


def _state_change(name: str, state: KeptState | None) -> Change:
    return Delete(STATES, name) if state is None else Put(STATES, name, state.to_json())


def _for_callers(release: Release) -> Sequence[Function] | None:
    """What others call: the methods that move its state are called by its host alone."""
    if release.functions is None or release.manifest.state is None:
        return release.functions
    return [function for function in release.functions if function.name not in STATE_METHODS]


def _read(table: str, key: str, row: Document) -> Any:
    kind: type[Model] = Release if table == MODULES else Load
    try:
        return kind.parse(dict(row))
    except InvalidInput as error:
        raise CorruptData(f"the kept row {key!r} of {table} cannot be read: {error}") from error
