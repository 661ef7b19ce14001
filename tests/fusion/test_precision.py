"""Precisions of the sentence encoder beside fp32: the tolerance is on the cosine of the same text's two places."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from noodle_ray.entry.training.datasets import Photograph, SpeechSet
from noodle_ray.errors import InvalidInput
from noodle_ray.fusion.decoding import decode
from noodle_ray.fusion.limits import DEFAULT
from noodle_ray.fusion_models.encoders import chosen_precision, load_anchor, load_encoder, located
from noodle_ray.fusion_models.packs import Pack
from noodle_ray.fusion_models.pretrained import from_pretrained
from noodle_ray.fusion_models.processors import load_warm
from noodle_ray.fusion_models.quantised import PRECISIONS
from noodle_ray.fusion_models.text import SentenceModel

TEXTS = ["A cat asleep on a chair.", "def wait(self, timeout=None)", "Waiting with a cup of coffee", "x", "é" * 500]
LEAST_COSINE = {"fp16": 0.99999, "bf16": 0.999, "int8": 0.9}


@pytest.mark.parametrize("precision", LEAST_COSINE)
def test_less_precise_places_are_close(base: Pack, precision: str) -> None:
    exact, other = load_anchor(base).embed(TEXTS), load_anchor(base, precision).embed(TEXTS)
    assert (exact * other).sum(1).min() > LEAST_COSINE[precision]


def test_the_layers_put_together_give_what_the_model_itself_gives(base: Pack) -> None:
    source = located(base, "text")[1]
    itself = SentenceModel(from_pretrained("AutoModel", source), from_pretrained("AutoTokenizer", source))
    assert load_anchor(base).embed(TEXTS) == pytest.approx(itself.embed(TEXTS), abs=1e-5)


def test_batches_change_no_place(base: Pack) -> None:
    model = load_anchor(base)
    together = model.embed(TEXTS)
    for row, text in zip(together, TEXTS, strict=True):
        assert row == pytest.approx(model.embed([text])[0], abs=1e-5)


def test_what_is_best_here_is_chosen() -> None:
    assert chosen_precision("audio", "auto", "cpu") == "int8"
    assert chosen_precision("text", "auto", "cpu") == chosen_precision("vision", "auto", "cpu") == "fp16"
    assert chosen_precision("audio", "auto", "cuda") == chosen_precision("text", "auto", "cuda") == "fp32"
    assert chosen_precision("text", "bf16", "cpu") == "bf16"


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("modality", ["text", "code", "vision"])
def test_every_precision_runs_every_encoder(base: Pack, modality: str, precision: str) -> None:
    content = {"text": "a cup of coffee", "code": "def wait(self): ...", "vision": np.full((64, 64, 3), 90, np.uint8)}
    reading = load_warm(base, modality, precision, "cpu").encode(content[modality], ())
    exact = load_warm(base, modality, "fp32", "cpu").encode(content[modality], ())
    assert reading.embedding is not None and exact.embedding is not None
    assert reading.embedding @ exact.embedding > 0.9


# Which of "cpu" and "cpu:0" it is called makes the difference: the second goes the way that a GPU goes.
ELSEWHERE = ["cpu:0", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
CLOSE_ELSEWHERE = {"fp32": 0.9999, "fp16": 0.998, "bf16": 0.97}


@pytest.mark.parametrize("device", ELSEWHERE)
@pytest.mark.parametrize("precision", CLOSE_ELSEWHERE)
@pytest.mark.parametrize("modality", ["text", "code", "vision", "audio"])
def test_every_precision_runs_on_other_devices(
    base: Pack, photographs: dict[str, Photograph], speech: SpeechSet, modality: str, precision: str, device: str
) -> None:
    content = {
        "text": "a cup of coffee",
        "code": "def wait(self): ...",
        "vision": decode("vision", photographs["coffee"].path.read_bytes(), DEFAULT),
        "audio": decode("audio", speech["one-moment-please"].path.read_bytes(), DEFAULT),
    }[modality]
    reading = load_warm(base, modality, precision, device).encode(content, ("one moment please", "a cat"))
    exact = load_warm(base, modality, "fp32", "cpu").encode(content, ("one moment please", "a cat"))
    assert reading.embedding is not None and exact.embedding is not None
    assert reading.embedding @ exact.embedding > CLOSE_ELSEWHERE[precision]
    assert reading.transcript == exact.transcript


@pytest.mark.parametrize("modality", ["text", "code", "audio", "vision"])
def test_unknown_precisions_and_devices_are_named(base: Pack, modality: str) -> None:
    with pytest.raises(InvalidInput, match="precision"):
        load_encoder(base, modality, "fp8")
    with pytest.raises(InvalidInput, match="device"):
        load_encoder(base, modality, "fp32", "tpu")
