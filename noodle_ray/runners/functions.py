"""The functions of an entry point: which of them can be called, and with which arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from noodle_ray.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Function:
    """One function, looked at once, so that a call need not.

    `signature` is None for those functions in C that have none: they check for themselves. `shadowed` are names of
    positional-only parameters that a keyword may have too, because the function takes any keyword.
    """

    name: str
    code: Callable[..., Any]
    is_async: bool
    signature: inspect.Signature | None
    shadowed: frozenset[str]

    @classmethod
    def of(cls, name: str, code: Callable[..., Any]) -> Function:
        signature = _signature(code)
        return cls(name, code, inspect.iscoroutinefunction(code), signature, _shadowed(signature))

    def require_fitting(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raises InvalidInput where the function does not take these arguments."""
        if self.signature is None:
            return
        if self.shadowed:
            # Python takes such a keyword into **kwargs; `bind` of Python 3.11 refuses it (cpython#87106).
            kwargs = {key: value for key, value in kwargs.items() if key not in self.shadowed}
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidInput.of("arguments", f"{error}; the function is {self.name}{self.signature}") from None


def methods(instance: object, reserved: Collection[str]) -> dict[str, Function]:
    """The public methods of the entry point's class, bound."""
    names = [name for name in dir(type(instance)) if not name.startswith("_") and name not in reserved]
    return {
        name: Function.of(name, getattr(instance, name)) for name in names if callable(getattr(type(instance), name))
    }


def functions(module: ModuleType, reserved: Collection[str]) -> dict[str, Function]:
    """The public functions of the entry point's file: those in __all__, or else those that it defines itself."""
    listed = getattr(module, "__all__", None)
    names = [name for name in vars(module) if not name.startswith("_")] if listed is None else list(listed)
    found = {name: getattr(module, name) for name in names if name not in reserved}
    return {
        name: Function.of(name, value)
        for name, value in found.items()
        if inspect.isroutine(value) and (listed is not None or value.__module__ == module.__name__)
    }


def _signature(code: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(code)
    except (ValueError, TypeError):
        return None


def _shadowed(signature: inspect.Signature | None) -> frozenset[str]:
    parameters = signature.parameters.values() if signature is not None else ()
    if not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters):
        return frozenset()
    return frozenset(each.name for each in parameters if each.kind is inspect.Parameter.POSITIONAL_ONLY)
