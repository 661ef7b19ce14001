"""The manifest: what a module says of itself, in the table [tool.noodle.module] of its pyproject.toml."""

from __future__ import annotations

import keyword
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from packaging.markers import InvalidMarker, Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from pydantic import AfterValidator, Field, model_validator

from noodle_ray.base_model import Model
from noodle_ray.errors import InvalidInput, TooLarge
from noodle_ray.modules.archive import read_entries
from noodle_ray.modules.versions import read_constraint, read_version
from noodle_ray.resources import Demand

FILE_NAME = "pyproject.toml"
MAX_MANIFEST_BYTES = 256 * 2**10
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)
_WANTED = re.compile(r"([^\[\]]+)(?:\[([^\[\]]+)\])?")
_CAPABILITY = re.compile(r"[a-z][a-z0-9]*([._-][a-z0-9]+)*", re.ASCII)


def normalise_name(name: str) -> str:
    """The one spelling of a module's name: "Word_Count" → "word-count". Raises InvalidInput."""
    try:
        return _read_name(name)
    except ValueError as error:
        raise InvalidInput.of("name", str(error), name) from None


def _read_name(name: str) -> str:
    if len(name) > 100 or not _NAME.fullmatch(name):
        raise ValueError("must be 1 to 100 letters, digits, dots, hyphens, underscores; a letter or digit at both ends")
    return canonicalize_name(name)


def _read_version(text: str) -> str:
    return str(read_version(text))


def read_wanted(text: str) -> tuple[str, str | None]:
    """A module and, where one is asked for, its optional feature: "a" or "a[fast]". Raises ValueError."""
    found = _WANTED.fullmatch(text)
    if found is None:
        raise ValueError('must be the name of a module, or "module[feature]"')
    return _read_name(found[1]), None if found[2] is None else _read_name(found[2])


def wanted_key(name: str, feature: str | None) -> str:
    """The one spelling of what `read_wanted` reads."""
    return name if feature is None else f"{name}[{feature}]"


def _read_requires(requires: dict[str, str]) -> dict[str, str]:
    read: dict[str, str] = {}
    for given, constraint in requires.items():
        try:
            name = wanted_key(*read_wanted(given))
            read_constraint(constraint)
        except ValueError as error:
            raise ValueError(f"{given[:100]!r}: {error}") from None
        if name in read:
            raise ValueError(f"names {name!r} twice")
        read[name] = constraint
    return read


def _read_features(features: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    read = {_read_name(name): _read_requires(requires) for name, requires in features.items()}
    if len(read) != len(features):
        raise ValueError("must not name a feature twice")
    return read


def _read_provides(provides: dict[str, str]) -> dict[str, str]:
    return {_read_name(name): _read_version(version) for name, version in provides.items()}


def _read_interfaces(interfaces: dict[str, str]) -> dict[str, str]:
    for constraint in interfaces.values():
        read_constraint(constraint)
    return {_read_name(name): constraint for name, constraint in interfaces.items()}


def _read_platform(marker: str) -> str:
    try:
        return str(Marker(marker))
    except InvalidMarker:
        raise ValueError("must be a marker as PEP 508 has it, such as \"sys_platform == 'linux'\"") from None


def _read_entry_point(text: str) -> str:
    file, colon, class_name = text.partition(":")
    parts = [*file.split("."), class_name] if colon else file.split(".")
    if not all(_is_identifier(part) for part in parts):
        raise ValueError('must be "package.file:Class" for a class, or "package.file" for the functions of a file')
    return text


def _read_function(name: str) -> str:
    if not _is_identifier(name) or name.startswith("__"):
        raise ValueError("must be the name of a function of the entry point")
    return name


def _is_identifier(text: str) -> bool:
    return text.isascii() and text.isidentifier() and not keyword.iskeyword(text)


def _read_capabilities(capabilities: tuple[str, ...]) -> tuple[str, ...]:
    for capability in capabilities:
        if len(capability) > 100 or not _CAPABILITY.fullmatch(capability):
            raise ValueError(f'{capability[:100]!r} must be lower-case words with dots between, such as "net.outbound"')
    if len(set(capabilities)) != len(capabilities):
        raise ValueError("must not name a capability twice")
    return capabilities


def _read_packages(packages: tuple[str, ...]) -> tuple[str, ...]:
    read: list[str] = []
    for package in packages:
        try:
            requirement = Requirement(package)
        except InvalidRequirement:
            raise ValueError(
                f'{package[:100]!r} must be a requirement as PEP 508 has it, such as "numpy>=2,<3"'
            ) from None
        if requirement.url is not None:
            # What is behind a URL or a path may change, or be missing on another machine.
            raise ValueError(f"{package[:100]!r} must be found by name in a package index, not by a URL or a path")
        read.append(str(requirement))
    return tuple(dict.fromkeys(read))


FunctionName = Annotated[str, Field(max_length=100), AfterValidator(_read_function)]
RunnerKind = Literal["in-host", "sandboxed", "serve"]


class StateSpec(Model):
    """A module that has state: its class has `export_state()` and `import_state(state, from_version)`.

    `schema_version` is that of what it exports, and what `from_version` tells; `reads` lists the others that it can
    import. The state is kept once a `checkpoint_s` in which calls ended or, where it is `durable`, before a call is
    answered.
    """

    schema_version: Annotated[int, Field(ge=1)] = 1
    reads: Annotated[tuple[int, ...], Field(max_length=100)] = ()
    durable: bool = False
    checkpoint_s: Annotated[float, Field(gt=0, le=3600)] = 1.0

    def can_read(self, schema_version: int) -> bool:
        """Whether it can go on from a state of this schema."""
        return schema_version in (self.schema_version, *self.reads)


class Replicas(Model):
    """How many hosts a module has: between two limits, so many that each has about `calls` under way at once."""

    min: Annotated[int, Field(ge=1, le=1000)] = 1
    max: Annotated[int, Field(ge=1, le=1000)] = 1
    calls: Annotated[float, Field(gt=0, le=10_000)] = 8.0

    @model_validator(mode="after")
    def _limits_in_order(self) -> Replicas:
        if self.max < self.min:
            raise ValueError(f"max: must be at least min, {self.min}")
        return self


class Manifest(Model):
    """What a module is called, needs and offers.

    `entry_point` is "package.file:Class" (an instance is made, its public methods can be called) or "package.file"
    (its public functions can). `resources` is what one loaded instance holds; None holds nothing. `health_check`
    names a function of the entry point that raises, or gives False, where the module is not well.

    `requires` maps "module" or "module[feature]" to a constraint; `features` maps each optional feature to what it
    requires beside that. `provides` names interfaces that the module has, in which version; `interfaces` those that it
    needs of some other module, in which versions. `platform` is a marker of the machines that it can run on.

    `runner` says where its code runs: in its host's process, in a child process of it, or as a Ray Serve application.
    `packages` are Python packages that it needs installed, `vendor` whether a folder of that name in it has its own
    copies. `idempotent` names functions that may run twice where a host dies under a call. `loading_timeout_s` is for a
    module that needs longer to load than others (NOODLE_MODULE_LOADING_TIMEOUT): one that reads a model, say.
    """

    name: Annotated[str, AfterValidator(_read_name)]
    version: Annotated[str, AfterValidator(_read_version)]
    description: Annotated[str, Field(max_length=1000)] = ""
    entry_point: Annotated[str, Field(max_length=300), AfterValidator(_read_entry_point)]
    requires: Annotated[dict[str, str], Field(max_length=200), AfterValidator(_read_requires)] = Field(
        default_factory=dict
    )
    features: Annotated[dict[str, dict[str, str]], Field(max_length=50), AfterValidator(_read_features)] = Field(
        default_factory=dict
    )
    provides: Annotated[dict[str, str], Field(max_length=50), AfterValidator(_read_provides)] = Field(
        default_factory=dict
    )
    interfaces: Annotated[dict[str, str], Field(max_length=50), AfterValidator(_read_interfaces)] = Field(
        default_factory=dict
    )
    platform: Annotated[str, Field(max_length=1000), AfterValidator(_read_platform)] | None = None
    resources: Demand | None = None
    capabilities: Annotated[tuple[str, ...], Field(max_length=50), AfterValidator(_read_capabilities)] = ()
    health_check: FunctionName | None = None
    runner: RunnerKind = "in-host"
    state: StateSpec | None = None
    replicas: Replicas = Field(default_factory=Replicas)
    packages: Annotated[tuple[str, ...], Field(max_length=200), AfterValidator(_read_packages)] = ()
    vendor: bool = False
    idempotent: Annotated[tuple[FunctionName, ...], Field(max_length=1000)] = ()
    loading_timeout_s: Annotated[float, Field(gt=0, le=3600)] | None = None

    @model_validator(mode="after")
    def _does_not_need_itself(self) -> Manifest:
        for requires in (self.requires, *self.features.values()):
            if self.name in {read_wanted(wanted)[0] for wanted in requires}:
                raise ValueError(f"requires: {self.name} must not need itself")
        return self

    @model_validator(mode="after")
    def _state_is_in_one_place(self) -> Manifest:
        if self.state is None:
            return self
        if self.replicas.max > 1:
            raise ValueError("replicas: a module that has state runs in one host: max must be 1")
        if self.runner == "serve":
            raise ValueError("runner: a module that has state runs in-host or sandboxed")
        if ":" not in self.entry_point:
            raise ValueError('entry_point: a module that has state is a class: "package.file:Class"')
        return self

    @property
    def is_checked(self) -> bool:
        """Whether a host that has loaded it is asked for more: its health check, or to go on from a state."""
        return self.health_check is not None or self.state is not None

    @property
    def accelerator_type(self) -> str | None:
        """The type of GPU that it must have, if it says so."""
        return self.resources.accelerator_type if self.resources is not None else None

    @property
    def package(self) -> str:
        """The top-level package of the entry point."""
        return self.entry_point.partition(":")[0].partition(".")[0]


def read_manifest(source: Path | bytes) -> Manifest:
    """The manifest of a module's directory, or of its archive's bytes. Raises InvalidInput naming every fault."""
    return parse_manifest(_manifest_in_directory(source) if isinstance(source, Path) else _manifest_in_archive(source))


def parse_manifest(content: bytes) -> Manifest:
    """Reads the text of a pyproject.toml. Raises InvalidInput."""
    if len(content) > MAX_MANIFEST_BYTES:
        raise TooLarge(FILE_NAME, len(content), MAX_MANIFEST_BYTES, "bytes")
    try:
        document = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput.of(FILE_NAME, f"is not TOML: {error}") from None
    table: Any = document
    for key in ("tool", "noodle", "module"):
        table = table.get(key) if isinstance(table, dict) else None
    if not isinstance(table, dict):
        raise InvalidInput.of(FILE_NAME, "has no table [tool.noodle.module]")
    return Manifest.parse(table)


def _manifest_in_directory(directory: Path) -> bytes:
    path = directory / FILE_NAME
    if not path.is_file():
        raise InvalidInput.of("module", f"has no {FILE_NAME} with a table [tool.noodle.module]", str(directory))
    return path.read_bytes()


def _manifest_in_archive(archive: bytes) -> bytes:
    return find_manifest(read_entries(archive))


def find_manifest(entries: dict[str, bytes]) -> bytes:
    """The manifest among a module's files: at the root or, in a wheel, in the one top-level folder that has one."""
    if FILE_NAME in entries:
        return entries[FILE_NAME]
    nested = [name for name in entries if name.count("/") == 1 and name.endswith("/" + FILE_NAME)]
    if len(nested) != 1:
        where = "at its root, or in one top-level folder"
        raise InvalidInput.of("module", f"needs one {FILE_NAME} {where}; found {len(nested)}")
    return entries[nested[0]]
