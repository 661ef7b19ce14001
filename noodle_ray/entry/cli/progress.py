"""How long steps are shown: a moving line on a terminal, plain lines where nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.markup import escape

from noodle_ray.entry.cli.output import errors


@contextmanager
def shown_progress() -> Iterator[Callable[[str], None]]:
    """Gives a function that takes each step's name; what it shows goes to the error stream."""
    if not errors.is_terminal:
        yield lambda line: errors.print(escape(line), highlight=False)
        return
    with errors.status("starting") as status:

        def show(line: str) -> None:
            errors.print(f"[dim]{escape(line)}[/dim]", highlight=False)
            status.update(escape(line))

        yield show
