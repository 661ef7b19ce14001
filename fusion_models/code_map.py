"""The learned map from a sentence model's reading of code to where a sentence about that code lies.

A sentence model places code by its words, a little aside of the sentence that describes it. The map is linear, was
learned from pairs of docstring and code, and belongs to the weights it was learned with: heads/code_map.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from noodle_ray.errors import CorruptData
from noodle_ray.fusion.reading import Matrix

SHIPPED = Path(__file__).parent / "heads" / "code_map.safetensors"


@dataclass(frozen=True, slots=True)
class CodeMap:
    """matrix: (width, width), applied from the right. encoder: the version of the weights it belongs to."""

    matrix: Matrix
    encoder: str

    def __call__(self, embeddings: Matrix) -> Matrix:
        """(n, width) unit vectors from (n, width) embeddings."""
        moved = embeddings @ self.matrix
        unit: Matrix = moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-9)
        return unit

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"matrix": self.matrix.astype(np.float16)}, path, {"encoder": self.encoder})

    @classmethod
    def load(cls, path: Path) -> CodeMap:
        """Raises CorruptData where the file is none."""
        try:
            with safe_open(path, framework="numpy") as file:
                return cls(file.get_tensor("matrix").astype(np.float32), (file.metadata() or {})["encoder"])
        except (OSError, SafetensorError, KeyError) as error:
            raise CorruptData(f"{path} is no map of code: {error}") from None


def shipped_map(encoder: str) -> CodeMap | None:
    """The map that comes with noodle-ray; None where it belongs to other weights than these."""
    shipped = CodeMap.load(SHIPPED)
    return shipped if shipped.encoder == encoder else None
