"""cluster.yaml: valid by Ray's own schema, and with the settings that `noodle up` uses."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

PATH = Path(__file__).parents[2] / "cluster.yaml"


@pytest.fixture
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(PATH.read_text())
    return loaded


def test_ray_accepts_it(config: dict[str, Any]) -> None:
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["provider"]["type"] == "local"


def test_rays_schema_refuses_what_is_wrong(config: dict[str, Any]) -> None:
    config["max_worker"] = config.pop("max_workers")
    with pytest.raises(Exception, match="max_worker"):
        validate_config(config)


def test_the_commented_cloud_section_is_valid_too(config: dict[str, Any]) -> None:
    lines = PATH.read_text().splitlines()
    start = lines.index("# provider:")
    cloud = [line.removeprefix("# ") for line in lines[start:] if line.startswith("# ")]
    section = yaml.safe_load("\n".join(cloud[: cloud.index("head_node_type: head") + 1]))
    assert section["provider"]["type"] == "aws"
    validate_config({**prepare_config(config), **section})


def test_ray_starts_with_our_settings_on_every_node(config: dict[str, Any]) -> None:
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert any('eval "$(noodle environment)"' in command for command in config[commands])
    assert any("noodle attach" in command for command in config["head_start_ray_commands"])


def test_the_token_reaches_every_node_unreadable_to_others(config: dict[str, Any]) -> None:
    assert config["file_mounts"]["~/.noodle-ray/token"]
    assert "chmod 600 ~/.noodle-ray/token" in config["setup_commands"]
