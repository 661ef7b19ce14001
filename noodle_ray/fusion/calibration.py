"""How far each encoder's scores can be trusted: temperatures fitted on held-out data, read from a JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib import resources
from typing import Annotated, Any

from pydantic import Field

from noodle_ray.base_model import Model
from noodle_ray.fusion.modality import CONTEXT, MODALITIES
from noodle_ray.fusion.rule import SubsetRule

Positive = Annotated[float, Field(gt=0)]


class Scale(Model):
    """Scores divided by `temperature` are log-probabilities.

    `fitted` documents on what the numbers were fitted and how well they do on data not used for that; it is empty
    where they were not fitted.
    """

    temperature: Positive
    fitted: dict[str, Any] = Field(default_factory=dict)


class Presumption(Model):
    """The probability that the input is one of the candidates word for word: sigmoid(offset - slope * unlikeliness)."""

    offset: float
    slope: Positive
    fitted: dict[str, Any] = Field(default_factory=dict)

    def probability(self, unlikeliness: float) -> float:
        exponent = min(max(self.slope * unlikeliness - self.offset, -700.0), 700.0)
        return 1.0 / (1.0 + math.exp(exponent))


class Calibration(Model):
    """The scales of one pack: `cosines` for compared embeddings, `scores` for encoders' own scores, by modality.

    `subsets`: how what remains is weighed where only some modalities came, by subset ("text+audio").
    A kind of input that is calibrated apart has a scale of its own among `cosines` ("vision:drawing").
    """

    cosines: dict[str, Scale]
    scores: dict[str, Scale] = Field(default_factory=dict)
    presumption: Presumption
    subsets: dict[str, SubsetRule] = Field(default_factory=dict)


UNFITTED = Calibration(
    # Sentence encoders are trained with cosines times 20 (sentence-transformers' default): a temperature of 1/20.
    cosines={modality: Scale(temperature=0.05) for modality in (*MODALITIES, CONTEXT)},
    scores={modality: Scale(temperature=1.0) for modality in MODALITIES},
    # Whatever is a hundred times less likely than the free reading is taken as not meant word for word.
    presumption=Presumption(offset=math.log(100.0), slope=1.0),
)
"""For packs that nobody has fitted anything for: the encoders' own training scales."""


def load_calibration(pack: str) -> Calibration:
    """The calibration that is shipped for the pack, or UNFITTED where there is none."""
    known = shipped()
    return Calibration.parse(known[pack]) if pack in known else UNFITTED


def shipped() -> Mapping[str, Any]:
    packs: Mapping[str, Any] = json.loads(resources.files("noodle_ray.fusion").joinpath("calibration.json").read_text())
    return packs
