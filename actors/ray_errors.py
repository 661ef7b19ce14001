"""Errors that cross Ray: ours come out as themselves, and a dead or unreachable actor as Unavailable."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import ray
from ray import exceptions

from noodle_ray.errors import DeadlineExceeded, NoodleError, Unavailable

_GONE = (
    exceptions.RayActorError,
    exceptions.ActorUnschedulableError,
    exceptions.ActorPlacementGroupRemoved,
    exceptions.NodeDiedError,
    exceptions.ObjectLostError,
)


class Gone(Unavailable):
    """The actor that was asked died before it answered, or is being restarted: whether it did it is not known."""


async def await_ref(ref: Awaitable[Any]) -> Any:
    """Awaits a Ray reference. Raises the NoodleError that the other side raised, or Unavailable where it is gone.

    Anything else that the other side raised is a fault of ours and comes out as Ray gives it.
    """
    try:
        return await ref
    except (exceptions.RayError, NoodleError) as error:
        raise translate(error) from error


def get(ref: ray.ObjectRef[Any], timeout_s: float | None = None) -> Any:
    """The same for a thread that may block. Raises DeadlineExceeded where the answer does not come in time."""
    try:
        return ray.get(ref, timeout=timeout_s)
    except exceptions.GetTimeoutError as error:
        raise DeadlineExceeded("the call", (timeout_s or 0) * 1000) from error
    except (exceptions.RayError, NoodleError) as error:
        raise translate(error) from error


def translate(error: Exception) -> Exception:
    """The NoodleError within an error of Ray's, Unavailable for an actor that is gone, or else the error itself."""
    cause: object = error
    while isinstance(cause, exceptions.RayTaskError):
        cause = cause.cause
    if isinstance(cause, NoodleError):
        return cause
    if isinstance(error, _GONE):
        return Gone(f"the other side is gone or cannot be reached: {first_line(error)}")
    return error


def first_line(error: BaseException) -> str:
    """What the error says, in one line: Ray's own messages run over many."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
