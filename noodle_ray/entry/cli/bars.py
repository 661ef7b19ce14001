"""Bars: how much of something is held and used by others, drawn in characters that also tell without colours."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from noodle_ray.nodes.overview import Use

_EIGHTHS = " ▏▎▍▌▋▊▉"
_LEVELS = "▁▂▃▄▅▆▇█"
HELD, OTHERS, FREE = ("█", "green"), ("▒", "yellow"), ("·", "bright_black")


def bar(use: Use, width: int) -> Text:
    """Held in full blocks to an eighth of a cell, then what others use, then what is free.

    Whatever is there at all shows: a tiny part has its eighth, or its cell.
    """
    if not use.total:
        return Text(" " * width)
    eighths = _shown(use.held / use.total, 8 * width)
    held = HELD[0] * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
    others = min(_shown(use.others / use.total, width), width - len(held))
    free = width - len(held) - others
    return Text.assemble((held, HELD[1]), (OTHERS[0] * others, OTHERS[1]), (FREE[0] * free, FREE[1]))


def bars(uses: tuple[Use, ...], width: int) -> Text:
    """One bar for each, side by side."""
    return Text(" ").join(bar(use, width) for use in uses)


def spark(ratios: Sequence[float], width: int) -> str:
    """The last of them, one character each: the lowest block for nothing, the full one for all."""
    return "".join(_LEVELS[min(int(ratio * len(_LEVELS)), len(_LEVELS) - 1)] for ratio in ratios[-width:])


def legend() -> Text:
    parts = [(HELD, "held"), (OTHERS, "used by others"), (FREE, "free")]
    return Text("  ").join(Text.assemble(glyph, f" {what}") for glyph, what in parts)


def _shown(ratio: float, cells: int) -> int:
    return min(max(round(ratio * cells), 1 if ratio > 0 else 0), cells)
