"""Encoders as modules: what is published, so that one machine loads, swaps and scales them, too."""

from __future__ import annotations

from pathlib import Path

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


def write_module(
    folder: Path, config: EncoderConfig, version: str, replicas: tuple[int, int], gpu_share: float
) -> None:
    """Writes one encoder's module into an empty folder. replicas: the fewest hosts that it has, and the most."""
    processor = PROCESSORS[config.modality].__name__
    package = f"noodle_{config.modality}_encoder"
    (folder / package).mkdir()
    (folder / package / "__init__.py").write_text(_CODE.format(processor=processor))
    (folder / package / "encoder.json").write_text(config.text())
    gpu = f"gpu_share = {gpu_share}\n" if config.device != "cpu" else ""
    manifest = _MANIFEST.format(
        name=module_name(config.modality),
        version=version,
        modality=config.modality,
        pack=config.pack,
        package=package,
        place=', "place"' if config.modality == "text" else "",
        timeout=LOADING_TIMEOUT_S,
        cpus=CPUS,
        gpu=gpu,
        least=replicas[0],
        most=max(replicas),
        calls=CALLS,
    )
    (folder / "pyproject.toml").write_text(manifest)
