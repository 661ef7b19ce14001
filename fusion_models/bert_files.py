"""A plain BERT and its tokenizer from a directory, without transformers.

To import what transformers needs for it takes more of a processor than all the rest of an encoder's start. Whatever is
not such a directory, damaged ones too, is left to transformers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from noodle_ray.fusion_models.sentence_layers import Bert, is_plain_bert

_PADDING = "[PAD]"
_NO_LIMIT = 10**30


class FileTokenizer:
    """Texts to numbered tokens, as transformers' own makes them of the same file. Not safe for several threads."""

    def __init__(self, tokenizer: Tokenizer, model_max_length: int) -> None:
        """Raises ValueError where it has no token to fill up with."""
        padding = tokenizer.token_to_id(_PADDING)
        if padding is None:
            raise ValueError(f"no token {_PADDING}")
        tokenizer.enable_padding(pad_id=padding, pad_token=_PADDING)
        self._tokenizer, self.model_max_length = tokenizer, model_max_length

    def __call__(self, texts: Sequence[str], *, max_length: int, **_: Any) -> dict[str, Tensor]:
        """(texts, tokens) each: `input_ids`, and `attention_mask`, 0 where a row is filled up."""
        if (self._tokenizer.truncation or {}).get("max_length") != max_length:
            self._tokenizer.enable_truncation(max_length)
        rows = self._tokenizer.encode_batch(list(texts))
        return {
            "input_ids": torch.tensor([row.ids for row in rows]),
            "attention_mask": torch.tensor([row.attention_mask for row in rows]),
        }


def read_bert(folder: Path) -> tuple[Bert, FileTokenizer] | None:
    """Model and tokenizer; None where the folder has no plain BERT, or is not whole."""
    try:
        config = SimpleNamespace(**json.loads((folder / "config.json").read_text()))
        if not is_plain_bert(config):
            return None
        limit = json.loads((folder / "tokenizer_config.json").read_text()).get("model_max_length", _NO_LIMIT)
        tokenizer = FileTokenizer(Tokenizer.from_str((folder / "tokenizer.json").read_text()), limit)
        return Bert(config, load_file(folder / "model.safetensors")).eval(), tokenizer
    except Exception:  # of many kinds; transformers reads it, or says what is wrong with it
        return None
