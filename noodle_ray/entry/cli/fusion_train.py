"""noodle fusion train and noodle fusion heads: labels of one's own, taught by examples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from noodle_ray.entry.cli.output import AsJson, print_json, print_table, say
from noodle_ray.entry.cli.progress import shown_count, shown_progress
from noodle_ray.errors import InvalidInput
from noodle_ray.fusion.head import Head, HeadDescription, known_heads
from noodle_ray.settings import read_settings

FIGURES = ["modalities", "cases", "accuracy", "confident and right", "coverage", "ECE"]
SPLIT_SEED = 7


def add_commands(app: typer.Typer) -> None:
    app.command()(train)
    app.command()(heads)


def train(
    rows: Annotated[Path | None, typer.Argument(exists=True, dir_okay=False, help="One JSON object a line.")] = None,
    name: Annotated[str, typer.Option(help="What the head is called.")] = "",
    split_seed: Annotated[int, typer.Option(help="Divides the rows where they do not say how.")] = SPLIT_SEED,
    shipped: Annotated[str, typer.Option(help="Rebuild this head, which comes with noodle-ray.")] = "",
    json: AsJson = False,
) -> None:
    """Train a head on rows of {"label", "text", "code", "image", "audio"}; image and audio are paths."""
    if bool(shipped) == bool(rows and name):
        raise InvalidInput.of("train", "takes a file of rows and a --name, or --shipped")
    if shipped:
        _rebuild(shipped)
        return
    assert rows is not None
    from noodle_ray.entry.training.teaching import teach

    head = teach(rows, name, read_settings(), split_seed, say, shown_count)
    _show(head.description, json)


def heads(json: AsJson = False) -> None:
    """The trained heads."""
    from noodle_ray.entry.training.teaching import heads_directory

    folder = heads_directory(read_settings())
    found = [Head.load(folder, name).description for name in known_heads(folder)]
    if json:
        print_json(found)
        return
    cells = [[head.name, len(head.labels), ", ".join(head.sources), _accuracy(head)] for head in found]
    print_table("Heads", ["head", "labels", "modalities", "accuracy"], cells, empty="none; `noodle fusion train`")


def _rebuild(name: str) -> None:
    from noodle_ray.entry.training.shipped_heads import rebuild

    with shown_progress() as progress:
        rebuild(name, read_settings().cache_dir, progress)


def _show(head: HeadDescription, json: bool) -> None:
    if json:
        print_json(head)
        return
    print_table(f"Head {head.name}, on the test part", FIGURES, [_cells(*item) for item in _figures(head).items()])


def _cells(modalities: str, row: dict[str, Any]) -> list[str]:
    right = row["selective_accuracy_percent"]
    return [
        modalities,
        str(row["cases"]),
        f"{row['accuracy_percent']:.1f} %",
        "-" if right is None else f"{right:.1f} %",
        f"{row['coverage_percent']:.1f} %",
        f"{row['ece']:.3f}",
    ]


def _figures(head: HeadDescription) -> dict[str, dict[str, Any]]:
    figures: dict[str, dict[str, Any]] = head.trained.get("figures", {})
    return figures


def _accuracy(head: HeadDescription) -> str:
    return ", ".join(f"{subset} {row['accuracy_percent']:.1f} %" for subset, row in _figures(head).items())
