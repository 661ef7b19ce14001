"""Trains a NamesHead on what was seen in drawings with names: whitened principal components, then two linear maps.

The names that a drawing could have are compared by a softmax over cosines, with the right one and, beside it, a keyword
among the keywords of the others (InfoNCE: van den Oord et al. 2018, "Representation Learning with Contrastive
Predictive Coding", equation 4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from noodle_ray.fusion_models.names_head import NamesHead

SEED = 0
BLOCKS = ((0, 544), (544, 3424), (3424, 4704))
"""Of a description: the earlier stages, the last but one over nine places, the last."""
COMPONENTS = (96, 256, 384)
SAMPLE = 6000
"""So many descriptions show what the principal components are."""
LEAST_SHARE = 0.03
"""A component that deviates less than this share of the first one is not stretched any further."""
HIDDEN, DROPPED, DECAY = 640, 0.3, 0.05
EPOCHS, BATCH, RATE = 8, 512, 3e-3
SHARPNESS, KEYWORDS = 55.0, 0.3
"""What sharpness begins with, and what a keyword counts beside a name."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Lessons:
    """Drawings and names.

    described: (n, described), of views; right: (n,), the index of each one's name. names: with their places (names,
    384). keywords: for each name the indices of its keywords, and where those lie: (keywords, 384).
    """

    described: Tensor
    right: Tensor
    names: tuple[str, ...]
    places: Tensor
    keywords: tuple[tuple[int, ...], ...]
    keyword_places: Tensor


class _Body(nn.Module):
    """What is learned by gradient: from components to an embedding."""

    def __init__(self, components: int, width: int) -> None:
        super().__init__()
        self.hide, self.place = nn.Linear(components, HIDDEN), nn.Linear(HIDDEN, width)
        self.sharpness = nn.Parameter(torch.tensor(SHARPNESS).log())

    def forward(self, reduced: Tensor) -> Tensor:
        dropped = functional.dropout(reduced, DROPPED, self.training)
        hidden = functional.dropout(functional.gelu(self.hide(dropped)), DROPPED, self.training)
        return functional.normalize(self.place(hidden), dim=1)


def train(lessons: Lessons, network: str, progress: Progress) -> NamesHead:
    """The head; `network` is the sha256 of the weights that saw the drawings. The same lessons give the same head."""
    torch.manual_seed(SEED)
    order = torch.randperm(len(lessons.described))
    centre, reduce = _components(lessons.described[order[:SAMPLE]].float())
    reduced = torch.cat([_reduced(rows.float(), centre, reduce) for rows in torch.split(lessons.described, BATCH)])
    body = _Body(reduced.shape[1], lessons.places.shape[1])
    _descend(body, reduced, lessons, progress)
    return NamesHead(
        blocks=BLOCKS,
        centre=centre,
        reduce=reduce,
        hide=(body.hide.weight.detach(), body.hide.bias.detach()),
        place=(body.place.weight.detach(), body.place.bias.detach()),
        sharpness=float(body.sharpness.detach().exp()),
        names=lessons.names,
        places=lessons.places,
        network=network,
    )


def _components(sample: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The mean, and for each block the map to its components, each with deviation 1."""
    centre, deviation = sample.mean(0), sample.std(0) + 1e-3
    maps = []
    for (start, end), count in zip(BLOCKS, COMPONENTS, strict=True):
        rows = (sample[:, start:end] - centre[start:end]) / deviation[start:end]
        _, lengths, axes = torch.pca_lowrank(rows, q=count, niter=1)
        spread = lengths / len(sample) ** 0.5
        maps.append((axes / spread.clamp(min=float(spread[0]) * LEAST_SHARE)).T / deviation[start:end])
    return centre, tuple(maps)


def _reduced(described: Tensor, centre: Tensor, reduce: Sequence[Tensor]) -> Tensor:
    centred = described - centre
    pairs = zip(BLOCKS, reduce, strict=True)
    return torch.cat([centred[:, start:end] @ matrix.T for (start, end), matrix in pairs], 1)


def _descend(body: _Body, reduced: Tensor, lessons: Lessons, progress: Progress) -> None:
    """AdamW with one cycle of the rate (Smith and Topin 2018, "Super-Convergence")."""
    matrices = [*body.hide.parameters(), *body.place.parameters()]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": [body.sharpness], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=RATE)
    batches = len(reduced) // BATCH
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=EPOCHS * batches)
    body.train()
    for epoch in range(EPOCHS):
        losses = []
        for chosen in torch.split(torch.randperm(len(reduced))[: batches * BATCH], BATCH):
            loss = _loss(body, reduced[chosen], lessons.right[chosen], lessons)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            cycle.step()
            losses.append(float(loss.detach()))
        progress(f"epoch {epoch + 1} of {EPOCHS}: loss {sum(losses) / len(losses):.3f}")
    body.eval()


def _loss(body: _Body, reduced: Tensor, right: Tensor, lessons: Lessons) -> Tensor:
    embedded, sharpness = body(reduced), body.sharpness.exp()
    loss = functional.cross_entropy(sharpness * embedded @ lessons.places.T, right)
    drawn = torch.tensor([_any_of(lessons.keywords[index]) for index in right.tolist()])
    has = drawn >= 0
    logits = sharpness * embedded[has] @ lessons.keyword_places[drawn[has]].T
    return loss + KEYWORDS * functional.cross_entropy(_others_only(logits, drawn[has]), torch.arange(len(logits)))


def _any_of(keywords: Sequence[int]) -> int:
    return keywords[int(torch.randint(len(keywords), ()))] if keywords else -1


def _others_only(logits: Tensor, drawn: Tensor) -> Tensor:
    """Without the columns that hold a row's own keyword once more."""
    again = (drawn[:, None] == drawn[None]) & ~torch.eye(len(drawn), dtype=torch.bool)
    return logits.masked_fill(again, -1e4)
