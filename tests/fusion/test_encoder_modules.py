"""The version of an encoder's module ends with what tells its content: another content has another end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from noodle_ray.fusion_models import encoder_modules
from noodle_ray.fusion_models.encoder_modules import tag_of, write_module
from noodle_ray.fusion_models.processors import EncoderConfig

CONFIG = EncoderConfig("text", "base", "w1", "auto", "cuda")


def test_the_same_module_has_the_same_tag() -> None:
    assert tag_of(CONFIG, (1, 2), 0.2) == tag_of(replace(CONFIG), (1, 2), 0.2)
    assert tag_of(CONFIG, (1, 2), 0.2).isalnum()


@pytest.mark.parametrize(
    ("config", "replicas", "gpu_share"),
    [
        (replace(CONFIG, weights="w2"), (1, 2), 0.2),
        (replace(CONFIG, precision="fp32"), (1, 2), 0.2),
        (CONFIG, (2, 2), 0.2),
        (CONFIG, (1, 3), 0.2),
        (CONFIG, (1, 2), 0.5),
    ],
)
def test_whatever_is_another_has_another(config: EncoderConfig, replicas: tuple[int, int], gpu_share: float) -> None:
    assert tag_of(config, replicas, gpu_share) != tag_of(CONFIG, (1, 2), 0.2)


def test_so_has_other_code_and_another_release(monkeypatch: pytest.MonkeyPatch) -> None:
    tags = {tag_of(CONFIG, (1, 2), 0.2)}
    monkeypatch.setattr(encoder_modules, "_CODE", encoder_modules._CODE + "\n")
    tags.add(tag_of(CONFIG, (1, 2), 0.2))
    monkeypatch.setattr(encoder_modules, "__version__", "9.9.9")
    tags.add(tag_of(CONFIG, (1, 2), 0.2))
    assert len(tags) == 3


def test_what_is_written_says_its_version_and_its_configuration(tmp_path: Path) -> None:
    write_module(tmp_path, CONFIG, "1.2.3", (1, 2), 0.2)
    assert 'version = "1.2.3"' in (tmp_path / "pyproject.toml").read_text()
    assert EncoderConfig.read(tmp_path / "noodle_text_encoder" / "encoder.json") == CONFIG
    compile((tmp_path / "noodle_text_encoder" / "__init__.py").read_text(), "encoder", "exec")
