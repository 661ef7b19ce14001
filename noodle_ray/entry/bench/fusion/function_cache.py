"""What the encoders made of the function finder's texts, fragments and voices, kept in the cache between runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from noodle_ray.entry.training import voices
from noodle_ray.entry.training.code_map_training import embedded
from noodle_ray.fusion.reading import Matrix
from noodle_ray.fusion_models.audio import SpeechEncoder
from noodle_ray.fusion_models.code import words_of
from noodle_ray.fusion_models.code_map import shipped_map
from noodle_ray.fusion_models.encoders import load_anchor, load_encoder
from noodle_ray.fusion_models.fetch import fetch_base
from noodle_ray.fusion_models.packs import load_pack
from noodle_ray.fusion_models.text import Sentences

Progress = Callable[[str], None]


class Kept:
    """Runs the base pack's encoders on what is not in `<cache_dir>/bench/function-finder/` yet."""

    def __init__(self, cache_dir: Path, progress: Progress) -> None:
        fetch_base(cache_dir)
        self._pack, self._progress = load_pack("base", cache_dir), progress
        self._folder = cache_dir / "bench" / "function-finder"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._model: Sentences | None = None
        self._map = shipped_map(self._pack.version("code"))

    def texts(self, texts: Sequence[str]) -> Matrix:
        """(n, 384): as the text encoder places them."""
        path = self._path("texts", self._pack.version("text"), texts)
        if not path.is_file():
            self._progress(f"placing {len(texts)} texts")
            self._model = self._model or load_anchor(self._pack)
            np.save(path, embedded(self._model, texts))
        placed: Matrix = np.load(path)
        return placed

    def codes(self, codes: Sequence[str]) -> Matrix:
        """(n, 384): as the code encoder places them."""
        if not codes:
            return np.zeros((0, 384), np.float32)
        placed = self.unmapped(codes)
        return placed if self._map is None else self._map(placed)

    def unmapped(self, codes: Sequence[str]) -> Matrix:
        """(n, 384): as the sentence model alone places them."""
        return self.texts([words_of(code) for code in codes])

    def heard(self, read_aloud: Sequence[tuple[str, str]]) -> list[str]:
        """What the speech encoder hears where (text, voice) is read aloud."""
        path = self._path("heard", self._pack.version("audio"), [f"{voice}: {text}" for text, voice in read_aloud])
        path = path.with_suffix(".json")
        if not path.is_file():
            listener = load_encoder(self._pack, "audio")
            assert isinstance(listener, SpeechEncoder)
            heard = []
            for number, (text, voice) in enumerate(read_aloud):
                heard.append(listener.transcribe(voices.speak(text, voice)).text or "silence")
                if number % 50 == 0:
                    self._progress(f"{number} of {len(read_aloud)} docstrings read aloud and heard")
            path.write_text(json.dumps(heard))
        found: list[str] = json.loads(path.read_text())
        return found

    def _path(self, kind: str, version: str, content: Sequence[str]) -> Path:
        digest = sha256("\0".join([version, *content]).encode()).hexdigest()
        return self._folder / f"{kind}-{digest[:16]}.npy"
