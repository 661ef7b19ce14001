"""How long steps are shown: a moving line on a terminal, plain lines where nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress

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


@contextmanager
def shown_count(title: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on the error stream, for many steps of one kind; gives a function to call after each of them."""
    if errors.is_terminal:
        with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=errors) as progress:
            task = progress.add_task(title, total=total)
            yield lambda: progress.advance(task)
        return
    done = count(1)

    def advance() -> None:
        number = next(done)
        if number == total or number % max(total // 10, 1) == 0:
            errors.print(f"{title}: {number} of {total}", highlight=False, markup=False)

    yield advance
