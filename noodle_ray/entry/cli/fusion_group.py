"""noodle fusion: heads that are trained for the service."""

from __future__ import annotations

import typer

from noodle_ray.entry.cli import fusion_train

app = typer.Typer(help="Trained heads for the fusion service.", no_args_is_help=True)
fusion_train.add_commands(app)
