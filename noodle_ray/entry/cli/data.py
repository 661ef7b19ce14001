"""noodle data: real input for the demo and the tests."""

from __future__ import annotations

import typer

from noodle_ray.entry.cli.output import AsJson, console, print_json
from noodle_ray.entry.cli.progress import shown_progress
from noodle_ray.entry.training.datasets import fetch_speech, speech_directory
from noodle_ray.settings import read_settings

app = typer.Typer(help="Real input for the demo and the tests.", no_args_is_help=True)
fetching = typer.Typer(help="Bring data into the cache.", no_args_is_help=True)
app.add_typer(fetching, name="fetch")


@fetching.command()
def speech(json: AsJson = False) -> None:
    """Recorded prompts with transcripts, from Debian's packages; nothing is installed."""
    cache_dir = read_settings().cache_dir
    with shown_progress() as progress:
        found = fetch_speech(cache_dir, progress)
    folder = speech_directory(cache_dir)
    if json:
        print_json({"folder": str(folder), "prompts": len(found.prompts)})
    else:
        console.print(f"{len(found.prompts)} prompts", highlight=False)


@fetching.command()
def emoji(json: AsJson = False) -> None:
    """Emoji as several artists drew them, with names, from npm's packages; nothing is installed."""
    from noodle_ray.entry.training.emoji import STYLES, emoji_directory, fetch_emoji

    cache_dir = read_settings().cache_dir
    with shown_progress() as progress:
        found = fetch_emoji(cache_dir, progress)
    styles = {style.name: sum(found.has(one, style.name) for one in found.emoji) for style in STYLES}
    if json:
        print_json({"folder": str(emoji_directory(cache_dir)), "emoji": len(found.emoji), "styles": styles})
    else:
        console.print(f"{len(found.emoji)} emoji in {len(styles)} styles", highlight=False)


@fetching.command()
def voices(json: AsJson = False) -> None:
    """Artificial voices: espeak-ng from the PATH, or from Debian's packages; nothing is installed."""
    from noodle_ray.entry.training.voices import VOICES, find_synthesiser

    with shown_progress() as progress:
        found = find_synthesiser(read_settings().cache_dir, progress)
    if json:
        print_json({"program": found.command[0], "version": found.version(), "voices": VOICES})
    else:
        console.print(f"{len(VOICES)} voices of espeak-ng {found.version()}", highlight=False)
