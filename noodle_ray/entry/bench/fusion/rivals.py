"""Every rival by name, and the program that runs one of them until what it reads is closed."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from noodle_ray.errors import NotFound

RIVALS = {
    "fastapi": "noodle_ray.entry.bench.fusion.rivals_fastapi:run",
    "litserve": "noodle_ray.entry.bench.fusion.rivals_litserve:run",
    "ray-serve": "noodle_ray.entry.bench.fusion.rivals_ray_serve:run",
}
"""`run(port, cache_dir, pack, ready)` serves POST /fusion and calls `ready` with its further process sessions."""

Ready = Callable[[list[int]], None]


def main() -> None:
    """rivals NAME PORT CACHE_DIR PACK: serves until standard input is closed."""
    name, port, cache_dir, pack = sys.argv[1:]
    if name not in RIVALS:
        raise NotFound("rival", name, list(RIVALS))
    module, _, function = RIVALS[name].partition(":")
    run: Any = getattr(import_module(module), function)
    run(int(port), Path(cache_dir), pack, say_ready)


def say_ready(sessions: list[int]) -> None:
    """One line for who started this; whatever is printed from now on goes to the error stream."""
    print(json.dumps({"sessions": sessions}), flush=True)
    os.dup2(2, 1)


def when_input_ends(act: Callable[[], Any]) -> None:
    """Acts, in a thread, when whoever started this program closes its input, or is gone."""

    def wait() -> None:
        while os.read(0, 1024):  # not sys.stdin, whose lock a forked child would find taken for ever
            pass
        act()

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    main()
