"""The floor: the same encoders called in one process, one request after the other, without HTTP or Ray.

Run as a program it speaks like the load generator: a target, then loads, a line of JSON each.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from itertools import count

from noodle_ray.entry.bench.fusion.load_generator import STARTED, Asked, Load, Target
from noodle_ray.entry.bench.fusion.mix import Mix, load_mix
from noodle_ray.entry.bench.fusion.rivals_encoders import Encoders


def play(encoders: Encoders, load: Load, mix: Mix) -> Iterator[Asked]:
    """Asks until the time is over; making a request takes none of it."""
    for index in count():
        if load.seconds <= 0:
            return
        question = mix.fields(load.number(index), load.modalities)
        start = time.monotonic()
        answer = encoders.answer(question)
        ms = (time.monotonic() - start) * 1000
        load = load.model_copy(update={"seconds": load.seconds - ms / 1000})
        yield Asked(at_s=start, late_ms=0, ms=ms, status=200, used=tuple(answer["modalities_used"]))


def main() -> None:
    """in_process PACK"""
    target = Target.model_validate_json(sys.stdin.readline())
    mix, encoders = load_mix(target.cache_dir), Encoders(target.cache_dir, sys.argv[1])
    for line in sys.stdin:
        print(STARTED, flush=True)
        asked = play(encoders, Load.model_validate_json(line), mix)
        print(json.dumps([one.to_json() for one in asked]), flush=True)


if __name__ == "__main__":
    main()
