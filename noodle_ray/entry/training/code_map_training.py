"""Trains the map of code into the space of sentences, on functions of pinned packages: `train` makes the shipped one.

The map starts as the identity and is drawn, by the loss of Radford et al. 2021 (CLIP, figure 3: softmax over the other
pairs of a batch, both ways), towards putting code where its docstring is. The epoch is chosen on pairs held back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from noodle_ray.entry.training.function_pairs import training_pairs
from noodle_ray.fusion.reading import Matrix
from noodle_ray.fusion_models.code import words_of
from noodle_ray.fusion_models.code_map import SHIPPED, CodeMap
from noodle_ray.fusion_models.encoders import load_anchor
from noodle_ray.fusion_models.fetch import fetch_base
from noodle_ray.fusion_models.packs import load_pack
from noodle_ray.fusion_models.text import Sentences

Progress = Callable[[str], None]

SEED = 3
MOST_WORDS = 120
"""Longer functions are left out: they would take most of the time, and be cut off by the encoder anyway."""
HELD_BACK = 1000
BATCH, EPOCHS, PATIENCE = 512, 40, 4
LEARNING_RATE, DROPOUT, TEMPERATURE = 3e-4, 0.1, 0.05
_EMBEDDED_AT_ONCE = 32


def train(cache_dir: Path, progress: Progress, target: Path = SHIPPED) -> CodeMap:
    """Trains the map with the base pack's sentence model and writes it to `target`; about 40 minutes on one core.

    The embeddings are kept in `<cache_dir>/training/`, so that a second run takes minutes.
    """
    fetch_base(cache_dir)
    pack = load_pack("base", cache_dir)
    texts, codes = _embedded_pairs(cache_dir, load_anchor(pack), pack.version("code"), progress)
    trained = CodeMap(fitted(texts, codes, progress), pack.version("code"))
    trained.save(target)
    return CodeMap.load(target)


def fitted(texts: Matrix, codes: Matrix, progress: Progress) -> Matrix:
    """(width, width): the map of the epoch in which the pairs held back (the last ones) found each other best."""
    torch.manual_seed(SEED)
    count = len(texts) - HELD_BACK
    pairs = torch.from_numpy(texts[:count]), torch.from_numpy(codes[:count])
    matrix = torch.eye(texts.shape[1], requires_grad=True)
    optimiser = torch.optim.Adam([matrix], lr=LEARNING_RATE)
    best, waited = mean_reciprocal_rank(texts[count:], codes[count:]), 0
    chosen: Matrix = np.eye(texts.shape[1], dtype=np.float32)
    progress(f"before: mean reciprocal rank {best:.3f} among {HELD_BACK} pairs held back")
    for epoch in range(EPOCHS):
        loss = _epoch(matrix, optimiser, *pairs)
        now = matrix.detach().numpy().astype(np.float32)
        reached = mean_reciprocal_rank(texts[count:], CodeMap(now, "")(codes[count:]))
        progress(f"epoch {epoch + 1}: loss {loss:.3f}, mean reciprocal rank {reached:.3f}")
        if reached > best:
            best, chosen, waited = reached, now.copy(), 0
        elif (waited := waited + 1) >= PATIENCE:
            break
    return chosen


def mean_reciprocal_rank(texts: Matrix, codes: Matrix) -> float:
    """How high each text's own code is among all of them: 1 for always first."""
    cosines = texts @ codes.T
    ranks = (cosines > np.diag(cosines)[:, None]).sum(axis=1) + 1
    return float((1.0 / ranks).mean())


def _epoch(matrix: Tensor, optimiser: torch.optim.Optimizer, texts: Tensor, codes: Tensor) -> float:
    losses = []
    for batch in torch.split(torch.randperm(len(texts)), BATCH):
        moved = functional.normalize(functional.dropout(codes[batch], DROPOUT) @ matrix, dim=1)
        likeness = moved @ texts[batch].T / TEMPERATURE
        own = torch.arange(len(batch))
        loss = (functional.cross_entropy(likeness, own) + functional.cross_entropy(likeness.T, own)) / 2
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    return float(np.mean(losses))


def _embedded_pairs(cache_dir: Path, model: Sentences, version: str, progress: Progress) -> tuple[Matrix, Matrix]:
    """(pairs, width) of the docstrings and of the code, in the fixed order of training_pairs."""
    path = cache_dir / "training" / f"code_map-{version.replace('/', '-')}.npz"
    if not path.is_file():
        pairs = [(pair.summary, words_of(pair.code)) for pair in training_pairs()]
        short = [(text, code) for text, code in pairs if len(code.split()) <= MOST_WORDS]
        progress(f"{len(short)} pairs of docstring and code are placed by the sentence model")
        texts, codes = (embedded(model, [pair[column] for pair in short], progress) for column in (0, 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, texts=texts, codes=codes)
    with np.load(path) as kept:
        return kept["texts"], kept["codes"]


def embedded(model: Sentences, texts: Sequence[str], progress: Progress = lambda line: None) -> Matrix:
    """(n, width) in the texts' order; texts of like length go through the model together."""
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    rows = []
    for start in range(0, len(order), _EMBEDDED_AT_ONCE):
        rows.append(model.embed([texts[index] for index in order[start : start + _EMBEDDED_AT_ONCE]]))
        if start % (100 * _EMBEDDED_AT_ONCE) == 0:
            progress(f"{start} of {len(texts)}")
    result = np.empty_like(np.concatenate(rows))
    result[order] = np.concatenate(rows)
    return result
