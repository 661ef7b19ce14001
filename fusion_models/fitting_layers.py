"""Fits the layers of one source: logistic regression, and a small network where that is measurably better.

Both stop early on validation data: Prechelt 1998, "Early Stopping — But When?". Everything is drawn from one seed and
runs on one thread, so that the same data give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from noodle_ray.fusion.head import Layer

LINEAR, NETWORK = "linear", "network"
WORTH = 0.01
"""Nats a case by which the network must beat the linear model on validation data."""
RIDGES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""Strengths of L2, strongest first: each fit begins where the one before it ended."""
STEPS, ITERATIONS, PATIENCE = 10, 5, 2
HIDDEN, DROPOUT, RATE, DECAY, BATCH = 128, 0.3, 1e-3, 1e-2, 128
EPOCHS, EPOCH_PATIENCE = 60, 6

Progress = Callable[[str], None]
Rows = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Part:
    """rows: (n, width); labels: (n,) indices of classes."""

    rows: Rows
    labels: Labels


@dataclass(frozen=True, slots=True)
class Fitted:
    """layers with the standardisation of the rows folded in; `loss`: nats a case on the validation part."""

    kind: str
    layers: tuple[Layer, ...]
    loss: float


@dataclass(frozen=True, slots=True)
class _Data:
    """Both parts as tensors, standardised by the first one's mean and deviation."""

    rows: Tensor
    labels: Tensor
    held_rows: Tensor
    held_labels: Tensor
    classes: int
    mean: Tensor
    deviation: Tensor


def fit_linear(fit: Part, validation: Part, classes: int) -> Fitted:
    """Multinomial logistic regression along a path of ridges; the best point of the path on validation."""
    with one_thread():
        return _linear(_data(fit, validation, classes))


def fit_network(fit: Part, validation: Part, classes: int, seed: int) -> Fitted:
    """One hidden layer, dropout, AdamW (Loshchilov and Hutter 2019); the best epoch on validation."""
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _network(_data(fit, validation, classes))


@contextmanager
def one_thread() -> Iterator[None]:
    """The number of threads decides in which order sums are added up."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _data(fit: Part, validation: Part, classes: int) -> _Data:
    rows = torch.from_numpy(fit.rows)
    deviation, mean = torch.std_mean(rows, 0, correction=0)
    deviation = deviation.clamp(min=1e-4)  # what never changes tells nothing, whatever rounding makes of it
    held = (torch.from_numpy(validation.rows) - mean) / deviation
    labels, held_labels = torch.from_numpy(fit.labels), torch.from_numpy(validation.labels)
    return _Data((rows - mean) / deviation, labels, held, held_labels, classes, mean, deviation)


def _linear(data: _Data) -> Fitted:
    model = nn.Linear(data.rows.shape[1], data.classes)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    best = _Best(data)
    for ridge in RIDGES:
        before = best.loss
        _descend(model, data, ridge, best)
        if best.loss >= before:
            break
    return Fitted(LINEAR, _folded(best.state, data), best.loss)


def _descend(model: nn.Linear, data: _Data, ridge: float, best: _Best) -> None:
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = functional.cross_entropy(model(data.rows), data.labels) + ridge / 2 * model.weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    worse = 0
    for _ in range(STEPS):
        optimiser.step(loss)  # type: ignore[no-untyped-call]
        worse = 0 if best.improved_by(model) else worse + 1
        if worse >= PATIENCE:
            return


def _network(data: _Data) -> Fitted:
    model = nn.Sequential(
        nn.Linear(data.rows.shape[1], HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, data.classes)
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    best, worse = _Best(data), 0
    for _ in range(EPOCHS):
        model.train()
        for batch in torch.split(torch.randperm(len(data.labels)), BATCH):
            optimiser.zero_grad()
            loss = functional.cross_entropy(model(data.rows[batch]), data.labels[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        worse = 0 if best.improved_by(model.eval()) else worse + 1
        if worse >= EPOCH_PATIENCE:
            break
    return Fitted(NETWORK, _folded(best.state, data), best.loss)


class _Best:
    """The weights that did best on the validation part so far."""

    def __init__(self, data: _Data) -> None:
        self._data = data
        self.loss = float("inf")
        self.state: list[Tensor] = []

    def improved_by(self, model: nn.Module) -> bool:
        with torch.no_grad():
            loss = float(functional.cross_entropy(model(self._data.held_rows), self._data.held_labels))
        if not loss < self.loss - 1e-4:
            return False
        self.loss = loss
        self.state = [parameter.detach().clone() for parameter in model.parameters()]
        return True


def _folded(state: list[Tensor], data: _Data) -> tuple[Layer, ...]:
    """Weights and biases in turn, the first pair for rows that are not standardised."""
    first = state[0] / data.deviation
    pairs = [(first, state[1] - first @ data.mean), *zip(state[2::2], state[3::2], strict=True)]
    return tuple(Layer(weights.numpy(), bias.numpy()) for weights, bias in pairs)
