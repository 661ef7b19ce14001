"""The state that a host has to give away: offered until whoever fetches it says that it is kept."""

from __future__ import annotations

import asyncio

from noodle_ray.errors import NoodleError


class StateOffer:
    """One state at a time, each with a number. Who fetches comes back for the next, and says what became of the last.

    Fetched and not sent: a host needs to know nobody, and whoever does not fetch from it any more has fenced it.
    """

    def __init__(self) -> None:
        self._number = 0
        self._state = b""
        self._kept: asyncio.Future[None] | None = None
        self._offered = asyncio.Event()

    async def keep(self, state: bytes) -> None:
        """Offers a state; returns when it is kept. Raises what was said to be the problem."""
        self._number += 1
        self._state = state
        self._kept = asyncio.get_running_loop().create_future()
        self._offered.set()
        await self._kept

    async def next(self, fetched: int = 0, problem: NoodleError | None = None) -> tuple[int, bytes]:
        """The next state and its number, once there is one. `fetched`: the last one is kept, or `problem` says why not.

        Whoever asks for the first time gives no number, and may get one that was given to another before.
        """
        if fetched == self._number and self._kept is not None and not self._kept.done():
            self._offered.clear()
            if problem is None:
                self._kept.set_result(None)
            else:
                self._kept.set_exception(problem)
        await self._offered.wait()
        return self._number, self._state
