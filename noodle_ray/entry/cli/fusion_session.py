"""noodle fusion session …: what is remembered from one request to the next."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from noodle_ray.entry.cli.output import AsJson, console, print_json

app = typer.Typer(help="Sessions: what `noodle fuse … --session ID` remembers.", no_args_is_help=True)


def _connected() -> Any:
    from noodle_ray.entry.client import connect

    return connect()


@app.command("open")
def open_session(json: AsJson = False) -> None:
    """Open a session; prints its id, which is the right to use it."""
    with _connected() as cluster:
        opened = cluster.fusion.open_session()
    if json:
        print_json(opened)
    else:
        console.print(opened.session, highlight=False, markup=False, soft_wrap=True)


@app.command()
def forget(session: Annotated[str, typer.Argument(help="The session's id.")]) -> None:
    """End a session, and all that it remembers with it."""
    with _connected() as cluster:
        cluster.fusion.forget_session(session)
    console.print("forgotten", highlight=False)
