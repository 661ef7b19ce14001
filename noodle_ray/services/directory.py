"""The service directory: who offers what, where it is reached, and for how long that is believed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, assert_never

from pydantic import Field, field_validator

from noodle_ray.base_model import Model
from noodle_ray.errors import Conflict, CorruptData, InvalidInput, LimitReached, NotFound
from noodle_ray.store.changes import Change, Delete, Document, Put

TABLE = "services"
MAX_SERVICES = 10_000

_PRINTABLE = r"^[^\x00-\x1f\x7f]*$"
ServiceName = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Capability = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[a-z][a-z0-9_-]*(\.[a-z0-9][a-z0-9_-]*)*$")]
MetadataName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")]
MetadataValue = Annotated[str, Field(max_length=1000, pattern=_PRINTABLE)]


class Registration(Model):
    """What a service says about itself.

    `address` is free text: an actor's name, a Serve application or a URL. Capabilities are dotted names such as
    "fusion.embed". With `ttl_s` the entry is a lease that ends unless it is renewed within that many seconds; without
    it the entry stays until it is removed. Raises InvalidInput.
    """

    name: ServiceName
    kind: Literal["component", "agent", "service"] = "service"
    address: Annotated[str, Field(min_length=1, max_length=500, pattern=_PRINTABLE)]
    capabilities: Annotated[tuple[Capability, ...], Field(max_length=50)] = ()
    version: Annotated[str, Field(max_length=100, pattern=_PRINTABLE)] = ""
    metadata: Annotated[dict[MetadataName, MetadataValue], Field(max_length=50)] = Field(default_factory=dict)
    ttl_s: Annotated[float, Field(ge=1, le=86_400)] | None = None

    @field_validator("capabilities")
    @classmethod
    def _are_distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted(name for name, count in Counter(value).items() if count > 1)
        if twice:
            raise ValueError(f"names {', '.join(twice)} more than once")
        return value


class Service(Registration):
    """An entry of the directory. The times, in seconds since 1970, are the directory's own, whatever a caller gives."""

    registered_at: float = 0.0
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Register:
    """A service asks to be listed, or says again what it is."""

    service: Registration
    at: float


@dataclass(frozen=True, slots=True)
class Renew:
    """A service is still there: its lease starts anew."""

    name: str
    at: float


@dataclass(frozen=True, slots=True)
class Unregister:
    """A service leaves."""

    name: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed: leases that ended by `at` are taken out."""

    at: float


@dataclass(frozen=True, slots=True)
class Recovered:
    """The directory starts, and these rows were kept: name to document."""

    rows: Mapping[str, Document]
    at: float


Event = Register | Renew | Unregister | Tick | Recovered
Instruction = Change


@dataclass
class Directory:
    """The registered services, at most `limit` of them.

    An event goes in through `handle`; what must be kept comes out. Renewals are not kept: a lease runs in full again
    after a restart, because nobody could renew while the directory was away.
    """

    limit: int = MAX_SERVICES
    _services: dict[str, Service] = field(default_factory=dict)

    def handle(self, event: Event) -> list[Instruction]:
        """Applies one event. Raises NotFound, Conflict, LimitReached or CorruptData, and then nothing has changed."""
        match event:
            case Register():
                return self._register(event.service, event.at)
            case Renew():
                return self._renew(event.name, event.at)
            case Unregister():
                self.service(event.name)
                return [self._remove(event.name)]
            case Tick():
                return [self._remove(service.name) for service in self.services() if _has_ended(service, event.at)]
            case Recovered():
                return self._recover(event)
        assert_never(event)

    def services(self) -> list[Service]:
        """Every entry, by name."""
        return [self._services[name] for name in sorted(self._services)]

    def service(self, name: str) -> Service:
        """One entry. Raises NotFound."""
        if name not in self._services:
            raise NotFound("service", name)
        return self._services[name]

    def find(self, capability: str) -> list[Service]:
        """The services that offer exactly this capability, by name."""
        return [service for service in self.services() if capability in service.capabilities]

    def _register(self, given: Registration, at: float) -> list[Instruction]:
        before = self._services.get(given.name)
        if before is not None and before.kind != given.kind:
            raise Conflict(f"the name {given.name!r} is taken by a service of kind {before.kind!r}")
        if before is None and len(self._services) >= self.limit:
            raise LimitReached("registered services", self.limit, "the directory's limit")
        service = _started(given, at)
        if before is not None and _said(before) == _said(service):
            return self._renew(given.name, at)
        self._services[service.name] = service
        return [Put(TABLE, service.name, service.to_json())]

    def _renew(self, name: str, at: float) -> list[Instruction]:
        service = self.service(name)
        self._services[name] = service.model_copy(update={"expires_at": _end_of_lease(service, at)})
        return []

    def _remove(self, name: str) -> Delete:
        del self._services[name]
        return Delete(TABLE, name)

    def _recover(self, event: Recovered) -> list[Instruction]:
        self._services = {name: _read(name, row, event.at) for name, row in event.rows.items()}
        return []


def _started(given: Registration, at: float) -> Service:
    return Service(**{**dict(given), "registered_at": at, "expires_at": _end_of_lease(given, at)})


def _end_of_lease(given: Registration, at: float) -> float | None:
    return None if given.ttl_s is None else at + given.ttl_s


def _has_ended(service: Service, at: float) -> bool:
    return service.expires_at is not None and service.expires_at <= at


def _said(service: Service) -> Mapping[str, object]:
    """The entry without the directory's own times."""
    return service.model_dump(exclude={"registered_at", "expires_at"})


def _read(name: str, row: Document, at: float) -> Service:
    try:
        service = Service.parse(dict(row))
    except InvalidInput as error:
        raise CorruptData(f"the kept entry of service {name!r} cannot be read: {error}") from error
    return service.model_copy(update={"expires_at": _end_of_lease(service, at)})
