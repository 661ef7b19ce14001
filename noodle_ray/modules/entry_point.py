"""The entry point: whether the code has what the manifest names, told from its source without running any of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from noodle_ray.errors import Fault, InvalidInput
from noodle_ray.modules.manifest import Manifest
from noodle_ray.modules.signatures import Function, Parameter, read_names

STATE_METHODS = {"export_state": 0, "import_state": 2}
"""What a class that has state must have, each with the number of arguments that it is given."""


def check_entry_point(manifest: Manifest, entries: Mapping[str, bytes], functions: Sequence[Function] | None) -> None:
    """Raises InvalidInput naming each field of the manifest that names what is not there.

    `entries` are the module's files, `functions` what its entry point offers; where only running it would tell, nothing
    is refused.
    """
    faults = [] if functions is None else [*_state(manifest, functions), *_idempotent(manifest, functions)]
    if faults := [*faults, *_health_check(manifest, read_names(entries, manifest.entry_point))]:
        raise InvalidInput(faults, subject="module")


def _state(manifest: Manifest, functions: Sequence[Function]) -> Iterator[Fault]:
    if manifest.state is None:
        return
    offered = {function.name: function for function in functions}
    for name, arguments in STATE_METHODS.items():
        if name not in offered:
            yield Fault("state", f"the class of a module that has state needs a method {name}")
        elif not _takes(offered[name].parameters, arguments):
            told = offered[name].text()
            yield Fault("state", f"{name} is called with {arguments or 'no'} arguments, and cannot be", told)


def _idempotent(manifest: Manifest, functions: Sequence[Function]) -> Iterator[Fault]:
    offered = {function.name for function in functions}
    for name in manifest.idempotent:
        if name not in offered:
            yield Fault("idempotent", "names what is no public function of the entry point", name)


def _health_check(manifest: Manifest, names: set[str] | None) -> Iterator[Fault]:
    if names is not None and manifest.health_check is not None and manifest.health_check not in names:
        yield Fault("health_check", "names what the entry point does not have", manifest.health_check)


def _takes(parameters: Sequence[Parameter] | None, arguments: int) -> bool:
    """Whether a function can be called with so many arguments, by position; unknown parameters can."""
    if parameters is None:
        return True
    ordered = [one for one in parameters if one.kind in ("positional", "either")]
    has_rest = any(one.kind == "rest" for one in parameters)
    needs_names = any(one.kind == "keyword" and one.required for one in parameters)
    required = sum(one.required for one in ordered)
    return required <= arguments and (has_rest or arguments <= len(ordered)) and not needs_names
