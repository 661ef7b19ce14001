"""Encoders as modules: what is published, so that one machine loads, swaps and scales them, too."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from noodle_ray import __version__
from noodle_ray.fusion_models.processors import PROCESSORS, EncoderConfig

LOADING_TIMEOUT_S = 180.0
"""Torch alone takes seconds to import, more on a machine that is busy starting everything else."""

_MANIFEST = """[tool.noodle.module]
name = "{name}"
version = "{version}"
description = "Reads {modality} for the fusion service, with the pack {pack}."
entry_point = "{package}:Encoder"
health_check = "is_well"
runner = "serve"
idempotent = ["read"{place}]
loading_timeout_s = {timeout}

[tool.noodle.module.resources]
cpus = {cpus}
{gpu}
[tool.noodle.module.replicas]
min = {least}
max = {most}
calls = {calls}
"""

_CODE = '''"""The encoder: its configuration is in the file beside this one."""

from pathlib import Path

from noodle_ray.fusion_models.processors import {processor}, EncoderConfig
from noodle_ray.precedence import go_ahead


class Encoder({processor}):
    def __init__(self) -> None:
        super().__init__(EncoderConfig.read(Path(__file__).with_name("encoder.json")))
        go_ahead()
'''

CPUS = 0.2
"""An encoder runs one thread for some milliseconds a request and sleeps otherwise: a small share leaves the node's CPUs
to the work placed on it."""
CALLS = 4
"""Requests under way in one replica from which another is started, as far as the setting lets it."""


def module_name(modality: str) -> str:
    return f"{modality}-encoder"


def tag_of(config: EncoderConfig, replicas: tuple[int, int], gpu_share: float) -> str:
    """The same for the same module of the same release, whatever its number: the end of its version."""
    parts = (__version__, *_files(config, "", replicas, gpu_share).values())
    return sha256("\0".join(parts).encode()).hexdigest()[:12]


def write_module(
    folder: Path, config: EncoderConfig, version: str, replicas: tuple[int, int], gpu_share: float
) -> None:
    """Writes one encoder's module into an empty folder. replicas: the fewest hosts that it has, and the most."""
    for path, text in _files(config, version, replicas, gpu_share).items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)


def _files(config: EncoderConfig, version: str, replicas: tuple[int, int], gpu_share: float) -> dict[str, str]:
    package = f"noodle_{config.modality}_encoder"
    manifest = _MANIFEST.format(
        name=module_name(config.modality),
        version=version,
        modality=config.modality,
        pack=config.pack,
        package=package,
        place=', "place"' if config.modality == "text" else "",
        timeout=LOADING_TIMEOUT_S,
        cpus=CPUS,
        gpu=f"gpu_share = {gpu_share}\n" if config.device != "cpu" else "",
        least=replicas[0],
        most=max(replicas),
        calls=CALLS,
    )
    return {
        "pyproject.toml": manifest,
        f"{package}/__init__.py": _CODE.format(processor=PROCESSORS[config.modality].__name__),
        f"{package}/encoder.json": config.text(),
    }
