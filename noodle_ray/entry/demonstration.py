"""Four real inputs that speak of the same thing: what the demonstration asks and the benchmark times.

They were chosen to show how evidence adds up: text, picture and code each prefer another candidate, the recording alone
is unsure, and all together find the first one. That is an illustration, not a claim about accuracy.
"""

from __future__ import annotations

from noodle_ray.entry.training.datasets import fetch_speech, photographs, python_functions
from noodle_ray.errors import NotFound
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.settings import read_settings

PHOTOGRAPH = "coffee"
PROMPT = "one-moment-please"
TEXT = "A short break until the next meeting starts."
FUNCTION = ("threading", "wait")
CANDIDATES = (
    "waiting with a cup of coffee",
    "an espresso machine",
    "waiting for a phone call",
    "a calendar of meetings",
    "a lock shared by threads",
    "a cat asleep on a chair",
)


def demonstration_request(audio: bytes | None = None, image: bytes | None = None) -> MultimodalInput:
    """A photograph, a text and a function with possible answers, and a sound where one is given.

    Raises Unavailable where scikit-image is missing.
    """
    return MultimodalInput(
        text=TEXT, code=_function(), image=image or _photograph(), audio=audio, candidates=CANDIDATES
    )


def recorded_sentence() -> bytes:
    """The spoken prompt that goes with them. Raises Unavailable where it cannot be fetched (no apt)."""
    return fetch_speech(read_settings().cache_dir)[PROMPT].path.read_bytes()


def _photograph() -> bytes:
    for photograph in photographs():
        if photograph.name == PHOTOGRAPH:
            return photograph.path.read_bytes()
    raise NotFound("photograph", PHOTOGRAPH)


def _function() -> str:
    """The shortest of that name: several classes of a module may have one."""
    found = [function.code for function in python_functions() if (function.module, function.name) == FUNCTION]
    if not found:
        raise NotFound("function", ".".join(FUNCTION))
    return min(found, key=len)
