"""Sentences in the anchor space: a transformer's token states, averaged and brought to length 1.

Reimers and Gurevych 2019, "Sentence-BERT". The pack `base` has all-MiniLM-L6-v2 here: 384 numbers a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn import functional

from noodle_ray.errors import shorten
from noodle_ray.fusion.reading import Matrix, Reading
from noodle_ray.fusion_models.bert_files import read_bert
from noodle_ray.fusion_models.pretrained import from_pretrained
from noodle_ray.fusion_models.quantised import FP32, in_precision
from noodle_ray.fusion_models.sentence_layers import Bert, is_plain_bert

MAX_TOKENS = 256
"""What all-MiniLM-L6-v2 was trained for; the rest of a longer text is not read."""
_CHARACTERS_A_TOKEN = 16
"""More than any vocabulary needs on average: spares the tokenizer a long text's unread rest."""


class Sentences(Protocol):
    """Places texts in a space: (n, width) unit vectors."""

    def embed(self, texts: Sequence[str]) -> Matrix: ...


class SentenceModel:
    """A transformer encoder with its tokenizer, from a directory or a hub id."""

    def __init__(self, model: Any, tokenizer: Any, device: str = "cpu") -> None:
        self._model, self._tokenizer, self._device = model.eval(), tokenizer, device
        self._max_tokens = min(MAX_TOKENS, tokenizer.model_max_length)

    @classmethod
    def load(cls, source: str | Path, precision: str = FP32, device: str = "cpu", **where: Any) -> SentenceModel:
        """`where` goes to `from_pretrained`: revision, local_files_only. Raises InvalidInput, Unavailable."""
        model, tokenizer = read_bert(Path(source)) or _with_transformers(source, where)
        return cls(in_precision(model, precision, device), tokenizer, device)

    @property
    def width(self) -> int:
        return int(self._model.config.hidden_size)

    def embed(self, texts: Sequence[str]) -> Matrix:
        """(n, width) unit vectors, in the order of the texts."""
        if not texts:
            return np.zeros((0, self.width), np.float32)
        with torch.inference_mode():
            batch = self._tokenizer(
                [text[: self._max_tokens * _CHARACTERS_A_TOKEN] for text in texts],
                padding=True,
                truncation=True,
                max_length=self._max_tokens,
                return_tensors="pt",
            )
            ids, mask = batch["input_ids"].to(self._device), batch["attention_mask"].to(self._device)
            states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
            mask = mask[:, :, None].to(states.dtype)
            mean = (states * mask).sum(1) / mask.sum(1)
            unit = functional.normalize(mean.float(), dim=1)
        return np.asarray(unit.cpu().numpy(), np.float32)


def _with_transformers(source: str | Path, where: dict[str, Any]) -> tuple[Any, Any]:
    model = from_pretrained("AutoModel", source, **where).eval()
    layers = Bert(model.config, model.state_dict()) if is_plain_bert(model.config) else model
    return layers, from_pretrained("AutoTokenizer", source, **where)


class TextEncoder:
    """Reads a text; also places candidates, for every other modality to be compared with."""

    def __init__(self, model: Sentences, version: str) -> None:
        self._model, self._version = model, version

    def encode(self, content: str, candidates: tuple[str, ...] = ()) -> Reading:
        return self.encode_many([content])[0]

    def encode_many(self, contents: Sequence[str]) -> list[Reading]:
        """Several texts in one pass: as one by one, but for rounding (1e-5 in every number of an embedding)."""
        rows = self._model.embed(contents)
        return [Reading(self._version, shorten(text), 1.0, row) for text, row in zip(contents, rows, strict=True)]

    def embed(self, texts: Sequence[str]) -> Matrix:
        return self._model.embed(texts)
