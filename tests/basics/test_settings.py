"""Settings: read once, every fault reported together."""

from pathlib import Path

import pytest

from noodle_ray.errors import InvalidSettings
from noodle_ray.settings import read_settings


def test_the_defaults_are_the_documented_ones() -> None:
    settings = read_settings({})
    assert settings.node_heartbeat_interval_ms == 30_000
    assert settings.node_timeout_ms == 90_000
    assert settings.resource_monitoring_interval_ms == 30_000
    assert settings.max_modules == 1000
    assert settings.module_loading_timeout_ms == 10_000
    assert settings.fusion_max_processing_time_ms == 200
    assert settings.fusion_confidence_threshold == 0.7
    assert settings.database == f"sqlite:///{Path.home()}/.noodle-ray/noodle.sqlite"


def test_every_variable_is_read() -> None:
    settings = read_settings(
        {
            "NOODLE_NODE_TIMEOUT": "5000",
            "NOODLE_STATE_DIR": "~/x",
            "NOODLE_DATABASE_URL": "postgresql://h/d",
            "NOODLE_MAX_BODY": "100",
            "PATH": "/bin",
        }
    )
    assert settings.node_timeout_ms == 5000
    assert settings.state_dir == Path.home() / "x"
    assert settings.database == "postgresql://h/d"
    assert settings.max_body_bytes == 100


def test_faults_are_reported_together_by_variable() -> None:
    with pytest.raises(InvalidSettings) as caught:
        read_settings(
            {"NOODLE_NODE_TIMEOUT": "-4", "NOODLE_MAX_MODULE": "3", "NOODLE_FUSION_CONFIDENCE_THRESHOLD": "high"}
        )
    assert [fault.field for fault in caught.value.faults] == [
        "NOODLE_MAX_MODULE",
        "NOODLE_NODE_TIMEOUT",
        "NOODLE_FUSION_CONFIDENCE_THRESHOLD",
    ]
    assert "NOODLE_MAX_MODULES" in str(caught.value)
    assert caught.value.code == "invalid_settings"


def test_an_unknown_variable_alone_is_a_fault() -> None:
    with pytest.raises(InvalidSettings, match="NOODLE_WURST: is no setting"):
        read_settings({"NOODLE_WURST": "1"})


def test_settings_travel_as_variables() -> None:
    settings = read_settings({"NOODLE_NODE_TIMEOUT": "5000", "NOODLE_LOG_LEVEL": "debug"})
    assert read_settings(settings.environment()) == settings


def test_a_clusters_name_is_one_that_can_be_announced() -> None:
    assert read_settings({"NOODLE_CLUSTER_NAME": "Lab-2"}).cluster_name == "Lab-2"
    with pytest.raises(InvalidSettings, match=r"NOODLE_CLUSTER_NAME: must be 1 to 63 letters.* \(given: my lab\)"):
        read_settings({"NOODLE_CLUSTER_NAME": "my lab"})
