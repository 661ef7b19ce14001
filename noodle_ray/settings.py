"""Every NOODLE_* variable, read once; all faults are reported together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasGenerator, ConfigDict, Field, ValidationError, field_validator

from noodle_ray.base_model import Model, faults_of
from noodle_ray.errors import Fault, InvalidSettings
from noodle_ray.fusion import limits
from noodle_ray.nodes.announcement import ClusterName

PREFIX = "NOODLE_"
Milliseconds = Annotated[int, Field(gt=0, le=86_400_000)]


def _variable(name: str) -> str:
    # A limit of the fusion has its unit in its name: of a picture there are two, bytes and pixels.
    unit = "_ms" if name.startswith("fusion_") else ("_ms", "_bytes")
    return PREFIX + _without(name, unit).upper()


def _without(name: str, endings: str | tuple[str, ...]) -> str:
    return name.rpartition("_")[0] if name.endswith(endings) else name


class Settings(Model):
    """Fields are named after their variable: `node_timeout_ms` is NOODLE_NODE_TIMEOUT, in milliseconds."""

    model_config = ConfigDict(alias_generator=AliasGenerator(validation_alias=_variable), validate_by_name=True)

    cluster_name: ClusterName = "noodle-ray"
    node_heartbeat_interval_ms: Milliseconds = 30_000
    node_timeout_ms: Milliseconds = 90_000
    node_probe_interval_ms: Milliseconds = 500
    node_suspect_after_ms: Milliseconds = 2_200
    node_confirm_ms: Milliseconds = 1_200
    resource_monitoring_interval_ms: Milliseconds = 30_000
    max_modules: Annotated[int, Field(gt=0)] = 1000
    module_loading_timeout_ms: Milliseconds = 10_000
    module_install_timeout_ms: Milliseconds = 300_000
    module_keep_warm_ms: Milliseconds = 30_000
    warm_hosts: Annotated[int, Field(ge=0, le=100)] = 2
    swap_canary_share: Annotated[float, Field(gt=0, le=1)] = 0.1
    swap_canary_calls: Annotated[int, Field(ge=0, le=100_000)] = 20
    swap_canary_timeout_ms: Milliseconds = 2_000
    swap_drain_timeout_ms: Milliseconds = 30_000
    gateway_replicas: Annotated[int, Field(ge=1, le=100)] = 1
    fusion_max_processing_time_ms: Milliseconds = 200
    fusion_confidence_threshold: Annotated[float, Field(ge=0, le=1)] = 0.7
    fusion_cache_bytes: Annotated[int, Field(ge=0)] = 64 * 2**20
    fusion_sessions: Annotated[int, Field(gt=0, le=100_000)] = 1000
    fusion_session_turns: Annotated[int, Field(gt=0, le=1000)] = 16
    fusion_session_ttl_ms: Milliseconds = 1_800_000
    fusion_session_half_life_ms: Milliseconds = 300_000
    fusion_indexes: Annotated[int, Field(gt=0, le=10_000)] = 100
    fusion_index_entries: Annotated[int, Field(gt=0, le=1_000_000)] = 10_000
    fusion_precision: Literal["auto", "fp32", "fp16", "bf16", "int8"] = "auto"
    fusion_device: Annotated[str, Field(pattern=r"^(cpu|cuda)$")] = "cpu"
    fusion_gpu_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    fusion_min_replicas: Annotated[int, Field(ge=1, le=100)] = 1
    fusion_max_replicas: Annotated[int, Field(ge=1, le=100)] = 1
    fusion_engines: Annotated[int, Field(ge=1, le=100)] = 1
    fusion_max_text_characters: limits.TextCharacters = limits.DEFAULT.text_characters
    fusion_max_code_characters: limits.CodeCharacters = limits.DEFAULT.code_characters
    fusion_max_image_bytes: limits.ImageBytes = limits.DEFAULT.image_bytes
    fusion_max_image_pixels: limits.ImagePixels = limits.DEFAULT.image_pixels
    fusion_max_audio_bytes: limits.AudioBytes = limits.DEFAULT.audio_bytes
    fusion_max_audio_seconds: limits.AudioSeconds = limits.DEFAULT.audio_seconds
    fusion_max_candidates: limits.Candidates = limits.DEFAULT.candidates
    fusion_max_items: limits.Items = limits.DEFAULT.items
    fusion_max_decoding_time_ms: limits.DecodingTime = limits.DEFAULT.decoding_time_ms
    fusion_max_decoding_bytes: limits.DecodingBytes = limits.DEFAULT.decoding_bytes
    state_dir: Path = Field(default_factory=lambda: Path.home() / ".noodle-ray")
    cache_dir: Path = Field(default_factory=lambda: Path.home() / ".cache" / "noodle-ray")
    database_url: Annotated[str, Field(repr=False)] = ""
    artefacts_url: str = ""
    pack: Annotated[str, Field(min_length=1)] = "base"
    max_body_bytes: Annotated[int, Field(gt=0)] = 32 * 2**20
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("state_dir", "cache_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @property
    def database(self) -> str:
        """The SQLAlchemy URL: NOODLE_DATABASE_URL, or SQLite in the state directory."""
        return self.database_url or f"sqlite:///{self.state_dir / 'noodle.sqlite'}"

    @property
    def store_name(self) -> str:
        """Where the store is, without a password."""
        scheme, separator, rest = self.database.partition("://")
        return f"{scheme}{separator}{rest.rpartition('@')[2].partition('?')[0]}"

    @property
    def artefacts(self) -> str:
        """Where packed modules are kept, as fsspec has it: NOODLE_ARTEFACTS_URL, or a folder in the state directory."""
        return self.artefacts_url or f"file://{self.state_dir / 'artefacts'}"

    @property
    def fusion_limits(self) -> limits.Limits:
        """What one fusion request may carry: NOODLE_FUSION_MAX_…, without its deadline."""
        return limits.Limits.parse({name: getattr(self, f"fusion_max_{name}") for name in limits.Limits.model_fields})

    @property
    def fusion_replicas(self) -> tuple[int, int]:
        """The fewest and the most hosts of an encoder: NOODLE_FUSION_MIN_REPLICAS, NOODLE_FUSION_MAX_REPLICAS."""
        return self.fusion_min_replicas, max(self.fusion_min_replicas, self.fusion_max_replicas)

    def environment(self) -> dict[str, str]:
        """The settings as the variables that give them back: for the processes that we start."""
        return {_variable(name): str(value) for name, value in self if str(value)}


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Reads all NOODLE_* variables. Raises InvalidSettings that lists every unknown name and wrong value."""
    given = {name: value for name, value in environment.items() if name.startswith(PREFIX)}
    known = {_variable(name) for name in Settings.model_fields}
    faults = [
        Fault(name, f"is no setting; known are {', '.join(sorted(known))}")
        for name in sorted(given)
        if name not in known
    ]
    settings: Any = None
    try:
        settings = Settings.model_validate({name: value for name, value in given.items() if name in known})
    except ValidationError as error:
        faults += faults_of(error)
    if faults:
        raise InvalidSettings(faults)
    return settings  # type: ignore[no-any-return]
