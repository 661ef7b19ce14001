"""noodle fuse: one answer from text, sound, a picture and code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from noodle_ray.entry.cli.output import AsJson, console, print_json, print_table
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.fusion.result import FusionResult

File = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, readable=True)]


def add_commands(app: typer.Typer) -> None:
    app.command()(fuse)


def fuse(
    text: Annotated[str, typer.Option()] = "",
    code: Annotated[str, typer.Option(help="A piece of source code.")] = "",
    image: File = None,
    audio: File = None,
    candidate: Annotated[list[str] | None, typer.Option(help="A possible answer; give it several times.")] = None,
    deadline_ms: Annotated[int | None, typer.Option(help="Shorter than the service's own.")] = None,
    json: AsJson = False,
) -> None:
    """Ask the fusion service: any subset of text, audio, image and code."""
    from noodle_ray.entry.client import connect

    request = MultimodalInput.parse(
        {
            "text": text or None,
            "code": code or None,
            "image": image.read_bytes() if image else None,
            "audio": audio.read_bytes() if audio else None,
            "candidates": candidate or [],
            "deadline_ms": deadline_ms,
        }
    )
    with connect() as cluster:
        result = cluster.fusion.process(request)
    if json:
        print_json(result)
    else:
        print_result(result)


def print_result(result: FusionResult) -> None:
    rows = [[f"{ranked.probability:.1%}", ranked.candidate] for ranked in result.candidates]
    if rows:
        sure = "confident" if result.confident else "not confident"
        print_table(f"Answer ({sure}: {result.confidence:.1%})", ["", "candidate"], rows)
    senses = [
        [
            name,
            result.readings.get(name, ""),
            f"{result.contributions.get(name, 0):+.3f}",
            f"{result.stage_ms[name]:.0f}",
        ]
        for name in result.modalities_used
    ]
    print_table("Senses", ["sense", "what it made of it", "contribution", "ms"], senses)
    for name in result.late:
        console.print(f"{name} came too late and was left out", style="yellow")
    for name, reason in result.failed.items():
        console.print(f"{name} failed: {reason}", style="yellow", markup=False)
    length = sum(value * value for value in result.embedding) ** 0.5
    console.print(
        f"joint embedding: {len(result.embedding)} numbers of length {length:.3f}; "
        f"{result.stage_ms['total']:.0f} ms in all; request {result.request_id}",
        highlight=False,
    )
