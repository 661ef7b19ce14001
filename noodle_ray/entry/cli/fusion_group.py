"""noodle fusion …: trained heads, indexes and sessions of the fusion service."""

from __future__ import annotations

import typer

from noodle_ray.entry.cli import fusion_index, fusion_session, fusion_train

app = typer.Typer(help="The fusion service: trained heads, indexes, sessions.", no_args_is_help=True)
fusion_train.add_commands(app)
app.add_typer(fusion_index.app, name="index")
app.add_typer(fusion_session.app, name="session")
