"""Kernels: who computes scores, machine code once it is there, numpy until then; both decide the same."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from noodle_ray.placement import valuation
from noodle_ray.placement.columns import CPUS, MEMORY, Bools, Columns, Ints
from noodle_ray.placement.prices import Prices
from noodle_ray.placement.valuation import NEVER, Ask

_compiled: Any = None


def warm() -> None:
    """Loads the machine code, compiling it where it is not cached yet; seconds then, else half a second."""
    global _compiled
    from noodle_ray.placement import compiled

    prices, columns = _smallest()
    out = np.zeros(1, np.int64)
    arguments = _arguments(prices, columns, Ask(0, 0, 1, 1))
    compiled.score_rows(np.zeros(1, np.int64), out, *arguments)
    compiled.cost_rows(np.zeros(1, np.int64), np.zeros((1, 5), np.int64), *arguments)
    compiled.best_rows(out, *_search_arguments(columns), np.zeros(1, np.int64), 1, np.ones(1, np.bool_), _NONE, 1)
    _compiled = compiled


def warm_in_background() -> None:
    """The same in a thread; decisions go on in numpy meanwhile."""
    threading.Thread(target=warm, name="noodle-ray-kernels", daemon=True).start()


def is_warm() -> bool:
    return _compiled is not None


def cool() -> None:
    """Goes back to numpy: for tests and benchmarks that compare the two."""
    global _compiled
    _compiled = None


def score_into(out: Ints, rows: Ints, prices: Prices, columns: Columns, ask: Ask) -> None:
    """Writes the score of each of the rows into `out` at that row."""
    if _compiled is not None:
        _compiled.score_rows(rows, out, *_arguments(prices, columns, ask))
    else:
        out[rows] = valuation.scores(prices, columns, rows, ask)


def cost_parts(rows: Ints, prices: Prices, columns: Columns, ask: Ask) -> tuple[valuation.Parts, Ints]:
    """What the ask costs each of the rows, by part, and the GPU that a share goes to; all rows have the amounts."""
    if _compiled is None:
        return valuation.costs(prices, valuation.Rooms.of(columns, rows), ask)
    out = np.zeros((len(rows), 5), np.int64)
    _compiled.cost_rows(rows, out, *_arguments(prices, columns, ask))
    return dict(zip(valuation.PARTS, out.T, strict=False)), out[:, 4]


def best_rows(
    scores: Ints, columns: Columns, extra: Ints, units: int, allowed: Bools, blocked: Bools | None, count: int
) -> Ints:
    """The best `count` rows, best first: those that are open, not blocked, of an allowed kind and have a score.

    `extra` is what a unit of GPU costs on each kind beside the score, `units` how many are taken. Equal scores: the
    node with fewer free CPUs, less free memory, then by a hash of its state; nodes that are alike, by a hash of the id.
    """
    search = _search_arguments(columns)
    if _compiled is not None:
        return _compiled.best_rows(  # type: ignore[no-any-return]
            scores, *search, extra, units, allowed, _NONE if blocked is None else blocked, count
        )
    return _best_rows(scores, search, extra * units, allowed, blocked, count)


_NONE: Bools = np.zeros(0, np.bool_)


def _best_rows(
    scores: Ints, search: tuple[Any, ...], extra: Ints, allowed: Bools, blocked: Bools | None, count: int
) -> Ints:
    is_open, kind, *keys = search
    able = (scores != NEVER) & is_open & allowed[kind]
    if blocked is not None:
        able &= ~blocked
    rows = np.flatnonzero(able)
    final = scores[rows] - extra[kind[rows]]
    if len(rows) > count:
        among_best = final >= np.partition(final, -count)[-count]
        rows, final = rows[among_best], final[among_best]
    order = np.lexsort((*(key[rows] for key in reversed(keys)), -final))
    return np.asarray(rows[order[:count]], np.int64)


def _search_arguments(columns: Columns) -> tuple[Any, ...]:
    return (
        columns.open,
        columns.vector("kind"),
        columns.amounts("free", CPUS),
        columns.amounts("free", MEMORY),
        columns.vector("state"),
        columns.vector("tie"),
    )


def _arguments(prices: Prices, columns: Columns, ask: Ask) -> tuple[Any, ...]:
    nodes = (
        columns.vector("kind"),
        columns.amounts("free", CPUS),
        columns.amounts("free", MEMORY),
        columns.gpus("free"),
        columns.vector("gpu_largest"),
        columns.vector("gpu_whole"),
    )
    numbers = (ask.cpu_units, ask.memory, ask.gpu_units, ask.gpu_count, ask.own_choice)
    return nodes, np.array(numbers, np.int64), prices.tables


def _smallest() -> tuple[Prices, Columns]:
    from noodle_ray.placement.prices import PriceInputs, compute
    from noodle_ray.resources import NodeResources

    columns = Columns()
    columns.add("node", NodeResources.of(cpus=1, memory=1, gpus=1))
    return compute(PriceInputs(classes=(), kinds=tuple(columns.kinds))), columns
