"""The base of every value that crosses a door: strict, immutable, and with our own errors when it is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from noodle_ray.errors import Fault, InvalidInput, shorten


def faults_of(error: ValidationError) -> list[Fault]:
    """Pydantic's findings as ours: dotted field, the fault, and the value (shortened)."""
    return [fault_of(entry) for entry in error.errors(include_url=False, include_context=False)]


def fault_of(entry: Mapping[str, Any]) -> Fault:
    field = ".".join(str(part) for part in entry["loc"]) or "input"
    problem = str(entry["msg"]).removeprefix("Value error, ")
    given = "" if entry["type"] == "missing" else shorten(entry["input"])
    return Fault(field, problem, given)


class Model(BaseModel):
    """A frozen pydantic model that refuses unknown fields and raises `InvalidInput` when built by hand."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    if not TYPE_CHECKING:  # type checkers keep the signature that pydantic derives from the fields

        def __init__(self, /, **fields: object) -> None:
            try:
                super().__init__(**fields)
            except ValidationError as error:
                raise InvalidInput(faults_of(error), subject=type(self).__name__) from None

        # Without this mark pydantic would call __init__ for nested models too, and lose the fields' full paths.
        __init__.__pydantic_base_init__ = True

    @classmethod
    def parse(cls, data: object) -> Self:
        """Validates plain data (JSON, TOML). Raises InvalidInput with every fault."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise InvalidInput(faults_of(error), subject=cls.__name__) from None

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")
