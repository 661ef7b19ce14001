"""Where a module's calls go: the table that callers are sent, and how one call finds its host in it."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from noodle_ray.errors import NotFound
from noodle_ray.modules.versions import VersionConstraint


@dataclass(frozen=True, slots=True)
class CallTarget:
    """What is called: a function of a module.

    Calls of one `session` run one after the other, in the order in which their caller made them, and on one host as
    long as that is there. `version` is a constraint: only versions that satisfy it are called.
    """

    module: str
    function: str
    session: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host that takes calls. `host` is the handle of its actor; `idempotent` names functions that may run twice."""

    epoch: int
    version: str
    host: Any
    idempotent: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Routes:
    """The hosts of a loaded module. A table with another `number` is another table, and a later one where it is higher.

    Calls go to `serving`, a `share` of them to `canary`; `pinned` take such only as are meant for their version. Where
    none serves, calls have to wait.
    """

    module: str
    number: int
    serving: tuple[Endpoint, ...] = ()
    canary: tuple[Endpoint, ...] = ()
    pinned: tuple[Endpoint, ...] = ()
    share: float = 0.0

    def all(self) -> tuple[Endpoint, ...]:
        return (*self.serving, *self.canary, *self.pinned)

    def choose(
        self,
        outstanding: Mapping[int, int],
        session: str | None = None,
        pin: VersionConstraint | None = None,
        avoid: Collection[int] = (),
    ) -> Endpoint | None:
        """The host for one call: of those that will do, the one with the fewest calls of this caller under way.

        A session keeps to one host as long as that is there. None where calls have to wait. `avoid` are epochs of
        hosts that were found gone. Raises NotFound where no version that runs satisfies the pin.
        """
        hosts = self._group(session) if pin is None else self._pinned(pin)
        left = [host for host in hosts if host.epoch not in avoid]
        if not left:
            return None
        if session is not None:
            return max(left, key=lambda host: _draw(session, host.epoch))
        if len(left) == 1:
            return left[0]
        fewest = min(outstanding.get(host.epoch, 0) for host in left)
        return random.choice([host for host in left if outstanding.get(host.epoch, 0) == fewest])  # noqa: S311

    def _group(self, session: str | None) -> Sequence[Endpoint]:
        if not self.canary or not self.serving:
            return self.serving
        draw = random.random() if session is None else _draw(session, self.canary[0].epoch)  # noqa: S311
        return self.canary if draw < self.share else self.serving

    def _pinned(self, pin: VersionConstraint) -> Sequence[Endpoint]:
        for group in (self.serving, self.canary, self.pinned):
            if group and pin.satisfies(group[0].version, prereleases=True):
                return group
        if not self.serving:
            return ()  # what is to come may satisfy it
        versions = dict.fromkeys(host.version for host in self.all())
        raise NotFound("running version", f"{self.module} {pin}", list(versions))


@dataclass(frozen=True, slots=True)
class Retired:
    """The answer of a host that takes no such calls any more: the call has not run, look for another host."""


def _draw(session: str, epoch: int) -> float:
    """The same number between 0 and 1 for the same session and host, in any process.

    The highest of several wins: a host that comes or goes moves no session but its own (highest random weight,
    Thaler and Ravishankar, 1998).
    """
    digest = blake2b(f"{epoch}:{session}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
