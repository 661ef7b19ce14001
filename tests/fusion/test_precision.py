"""Precisions of the sentence encoder beside fp32: the tolerance is on the cosine of the same text's two places."""

from __future__ import annotations

import pytest

from noodle_ray.errors import InvalidInput
from noodle_ray.fusion_models.encoders import chosen_precision, load_anchor, load_encoder
from noodle_ray.fusion_models.packs import Pack

TEXTS = ["A cat asleep on a chair.", "def wait(self, timeout=None)", "Waiting with a cup of coffee", "x", "é" * 500]
LEAST_COSINE = {"bf16": 0.999, "int8": 0.9}


@pytest.mark.parametrize("precision", LEAST_COSINE)
def test_less_precise_places_are_close(base: Pack, precision: str) -> None:
    exact, other = load_anchor(base).embed(TEXTS), load_anchor(base, precision).embed(TEXTS)
    assert (exact * other).sum(1).min() > LEAST_COSINE[precision]


def test_batches_change_no_place(base: Pack) -> None:
    model = load_anchor(base)
    together = model.embed(TEXTS)
    for row, text in zip(together, TEXTS, strict=True):
        assert row == pytest.approx(model.embed([text])[0], abs=1e-5)


def test_what_is_best_here_is_chosen() -> None:
    assert chosen_precision("audio", "auto", "cpu") == "int8"
    assert chosen_precision("audio", "auto", "cuda") == chosen_precision("text", "auto", "cpu") == "fp32"
    assert chosen_precision("text", "bf16", "cpu") == "bf16"


@pytest.mark.parametrize("modality", ["text", "code", "audio"])
def test_unknown_precisions_and_devices_are_named(base: Pack, modality: str) -> None:
    with pytest.raises(InvalidInput, match="precision"):
        load_encoder(base, modality, "fp8")
    with pytest.raises(InvalidInput, match="device"):
        load_encoder(base, modality, "fp32", "tpu")
