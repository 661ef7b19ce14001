"""noodle fuse: one answer from texts, sounds, pictures and code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from noodle_ray.entry.cli.output import AsJson, console, print_json, print_table
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.fusion.result import ContextEffect, FusionResult

Texts = Annotated[list[str] | None, typer.Option(help="A text; several show the same thing.")]
Codes = Annotated[list[str] | None, typer.Option(help="A piece of source code.")]
_FILES: dict[str, Any] = {"exists": True, "dir_okay": False, "readable": True}
Images = Annotated[list[Path] | None, typer.Option(help="A picture's file.", **_FILES)]
Sounds = Annotated[list[Path] | None, typer.Option(help="A sound's file.", **_FILES)]

_TITLES = {"choose": "Answer", "find": "Found", "classify": "Class"}


def add_commands(app: typer.Typer) -> None:
    app.command()(fuse)


def fuse(
    text: Texts = None,
    code: Codes = None,
    image: Images = None,
    audio: Sounds = None,
    candidate: Annotated[list[str] | None, typer.Option(help="A possible answer; give it several times.")] = None,
    candidates: Annotated[str, typer.Option(help="Possible answers, with commas between them.")] = "",
    candidate_image: Annotated[
        list[Path] | None, typer.Option(help="A picture that may be the answer; called by its file's name.", **_FILES)
    ] = None,
    index: Annotated[str | None, typer.Option(help='Find in this index; "modules" is the module registry.')] = None,
    head: Annotated[str | None, typer.Option(help="Classify with this trained head.")] = None,
    top: Annotated[int | None, typer.Option(help="At most so many answers.")] = None,
    session: Annotated[str | None, typer.Option(help="A session's id, from `noodle fusion session open`.")] = None,
    no_context: Annotated[
        bool, typer.Option("--no-context", help="What the session remembers is not to count here.")
    ] = False,
    deadline_ms: Annotated[int | None, typer.Option(help="Shorter than the service's own.")] = None,
    json: AsJson = False,
) -> None:
    """Ask the fusion service: any subset of text, audio, image and code, each once or several times."""
    from noodle_ray.entry.client import connect

    request = MultimodalInput.parse(
        {
            **given(text, code, image, audio),
            "candidates": list(_candidates(candidate or [], candidates, candidate_image or [])),
            "index": index,
            "head": head,
            "top": top,
            "session": session,
            "use_context": not no_context,
            "deadline_ms": deadline_ms,
        }
    )
    with connect() as cluster:
        result = cluster.fusion.process_multimodal_input(request)
    if json:
        print_json(result)
    else:
        print_result(result)


def given(
    text: Sequence[str] | None, code: Sequence[str] | None, image: Sequence[Path] | None, audio: Sequence[Path] | None
) -> dict[str, list[Any]]:
    """The fields of a request, or of an entry, from a command's options."""
    return {
        "text": list(text or ()),
        "code": list(code or ()),
        "image": [path.read_bytes() for path in image or ()],
        "audio": [path.read_bytes() for path in audio or ()],
    }


def _candidates(single: Sequence[str], together: str, images: Sequence[Path]) -> Iterator[Any]:
    yield from single
    yield from (name.strip() for name in together.split(",") if name.strip())
    yield from ({"label": path.name, "image": path.read_bytes()} for path in images)


def print_result(result: FusionResult) -> None:
    _print_answer(result)
    if result.context is not None:
        console.print(_told(result.context), style="cyan", markup=False, highlight=False)
    _print_senses(result)
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


def _print_answer(result: FusionResult) -> None:
    if not result.candidates:
        return
    sure = "confident" if result.confident else "not confident"
    title = f"{_TITLES.get(result.ask, 'Answer')} ({sure}: {result.confidence:.1%})"
    kept = list(dict.fromkeys(name for ranked in result.candidates for name in ranked.meta or {}))[:3]
    rows = [
        [f"{ranked.probability:.1%}", ranked.candidate, *(_cell((ranked.meta or {}).get(name)) for name in kept)]
        for ranked in result.candidates
    ]
    print_table(title, ["", "candidate", *kept], rows)


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def _told(context: ContextEffect) -> str:
    turns = f"{context.turns} turn{'' if context.turns == 1 else 's'}"
    if not context.counted:
        return f"the session ({turns}) was not counted"
    before = f"{context.candidate_without!r} at {context.confidence_without:.1%}"
    return f"the session ({turns}) adds {context.contribution:+.3f}; without it: {before}"


def _print_senses(result: FusionResult) -> None:
    rows = [
        [
            name,
            result.readings.get(name, ""),
            f"{result.contributions.get(name, 0):+.3f}",
            "remembered" if name in result.cached else f"{result.stage_ms.get(name, 0):.0f}",
        ]
        for name in result.modalities_used
    ]
    print_table("Senses", ["sense", "what it made of it", "contribution", "ms"], rows)
