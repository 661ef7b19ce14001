"""The rival that everybody writes first: FastAPI in one process, the encoders in threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from noodle_ray.entry.bench.fusion.rivals import Ready, when_input_ends
from noodle_ray.entry.bench.fusion.rivals_encoders import Encoders


class Question(BaseModel):
    """A request's body."""

    text: str | None = None
    code: str | None = None
    image: str | None = None
    audio: str | None = None
    candidates: list[str]


def application(encoders: Encoders) -> FastAPI:
    app = FastAPI()

    # Not async: so FastAPI runs it in its pool of threads, and its loop stays free.
    @app.post("/fusion")
    def fuse(question: Question) -> dict[str, Any]:
        return encoders.answer(question.model_dump())

    return app


def run(port: int, cache_dir: Path, pack: str, ready: Ready) -> None:
    app = application(Encoders(cache_dir, pack))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", access_log=False))

    def end() -> None:
        server.should_exit = True

    when_input_ends(end)
    ready([])
    server.run()
