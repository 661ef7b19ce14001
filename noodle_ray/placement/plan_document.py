"""A plan's document: requests to try, and the fleet to try them on where it is not the live one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from noodle_ray.base_model import Model
from noodle_ray.errors import InvalidInput
from noodle_ray.placement.claim import Priority
from noodle_ray.placement.dry_run import Wanted
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.request import Request
from noodle_ray.resources import Amount, Bytes, Demand, LabelName, LabelValue, NodeResources, to_units

Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Count = Annotated[int, Field(ge=1, le=100_000)]


class NodeGroup(Model):
    """Nodes that are alike."""

    name: Name
    count: Count = 1
    cpus: Amount = 0.0
    memory: Bytes = 0
    gpus: Annotated[int, Field(ge=0, le=1024)] = 0
    accelerator_type: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    labels: dict[LabelName, LabelValue] = Field(default_factory=dict)
    custom: dict[LabelName, Amount] = Field(default_factory=dict)

    @property
    def resources(self) -> NodeResources:
        return NodeResources(
            cpu_units=to_units(self.cpus),
            memory_bytes=self.memory,
            gpus=self.gpus,
            accelerator_type=self.accelerator_type,
            labels=self.labels,
            custom_units={name: to_units(amount) for name, amount in self.custom.items()},
        )


class LoneEntry(Demand):
    """Requests that are alike, each of one bundle: a demand's own fields."""

    name: Name
    count: Count = 1
    priority: Priority = 0
    anti_affinity: Annotated[str, Field(min_length=1, max_length=253)] | None = None

    @property
    def request(self) -> Request:
        demand = Demand(**{field: getattr(self, field) for field in Demand.model_fields})
        return Request(bundles=(demand,), anti_affinity=self.anti_affinity)


class GangEntry(Request):
    """Requests that are alike, each of several bundles: a request's own fields."""

    name: Name
    count: Count = 1
    priority: Priority = 0

    @property
    def request(self) -> Request:
        return Request(**{field: getattr(self, field) for field in Request.model_fields})


def _entry(given: object) -> object:
    """Decides by `bundles` which of the two it is, so that faults are those of the one that was meant."""
    if not isinstance(given, dict):
        raise ValueError("must have a name and the fields of a demand, or a name and bundles")
    return GangEntry.model_validate(given) if "bundles" in given else LoneEntry.model_validate(given)


Entry = Annotated[GangEntry | LoneEntry, BeforeValidator(_entry)]
Entries = tuple[NodeGroup | GangEntry | LoneEntry, ...]


class PlanDocument(Model):
    """`fleet` and `policy` may be left out: the live fleet, the default policy. Raises InvalidInput."""

    fleet: tuple[NodeGroup, ...] | None = None
    policy: str | None = None
    requests: tuple[Entry, ...]

    @field_validator("fleet", "requests")
    @classmethod
    def _have_names(cls, entries: Entries | None) -> Entries | None:
        if entries is not None and not entries:
            raise ValueError("must have an entry")
        twice = [name for name, count in Counter(_names(entries or ())).items() if count > 1]
        if twice:
            raise ValueError(f"has the name {twice[0]} twice (entries with a count are called name-1, name-2, …)")
        return entries

    @classmethod
    def read(cls, text: str) -> PlanDocument:
        """Reads YAML, of which JSON is a part. Raises InvalidInput with every fault."""
        import yaml  # type: ignore[import-untyped]

        try:
            given = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InvalidInput.of("document", f"is no YAML: {_where(error)}") from None
        if not isinstance(given, dict):
            raise InvalidInput.of("document", "must have requests, and may have fleet and policy", given)
        return cls.parse(given)

    def pool(self) -> ResourcePool | None:
        """The described fleet, with nothing on it; None where the live one is meant."""
        if self.fleet is None:
            return None
        pool = ResourcePool()
        for group in self.fleet:
            for name in _names([group]):
                pool.add_node(name, group.resources)
        return pool

    def wanted(self) -> list[Wanted]:
        """The requests one by one."""
        return [
            Wanted(name=name, request=entry.request, priority=entry.priority)
            for entry in self.requests
            for name in _names([entry])
        ]


def _names(entries: Iterable[NodeGroup | GangEntry | LoneEntry]) -> Iterator[str]:
    for entry in entries:
        if entry.count == 1:
            yield entry.name
        else:
            yield from (f"{entry.name}-{number}" for number in range(1, entry.count + 1))


def _where(error: Any) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or "it cannot be read"
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else str(problem)
