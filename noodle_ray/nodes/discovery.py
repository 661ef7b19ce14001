"""Discovery: which of the clusters that were heard on the network is the one to join, and why the others are not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from noodle_ray.errors import Conflict, InvalidInput, NoodleError, NotFound, Unauthorized
from noodle_ray.nodes.announcement import Announcement, read

REISSUED_S = 60
"""How often a head signs its announcement anew."""

MAX_AGE_S = 300
"""How long one is accepted: a few that got lost, and a clock that is some minutes off, do no harm."""

MAX_AHEAD_S = 120
"""How far the head's clock may be ahead of this host's."""

GONE_S = 2 * REISSUED_S
"""A head that has been silent for this long while another one of its cluster was heard is gone."""

MOST_TOLD = 20
"""Clusters that one message names: how many there are is up to anybody on the network."""

Standing = Literal["ours", "another token", "too old", "from the future"]


@dataclass(frozen=True, slots=True)
class Heard:
    """What came under the name of an instance: unread, and possibly anybody's."""

    instance: str
    properties: Mapping[bytes, bytes | None]


@dataclass(frozen=True, slots=True)
class Judged:
    """An announcement, and whether it may be believed. age_s: by this host's clock; negative: it is from the future."""

    announcement: Announcement
    standing: Standing
    age_s: float

    def __str__(self) -> str:
        where = f"{self.announcement.name} at {self.announcement.address}"
        if self.standing == "ours":
            return where
        if self.standing == "another token":
            return f"{where} is signed with another token than this host's"
        return f"{where} was signed {_minutes(self.age_s)} by this host's clock"


def verify(heard: Heard, token: str, now: float) -> Judged:
    """Reads and judges it; now: seconds since 1970. Raises InvalidInput where it is no announcement."""
    signed = read(heard.properties)
    age = now - signed.announcement.issued_at
    # The signature comes first: of what others have signed, the time says nothing.
    if not signed.fits(token):
        return Judged(signed.announcement, "another token", age)
    if age > MAX_AGE_S:
        return Judged(signed.announcement, "too old", age)
    return Judged(signed.announcement, "from the future" if age < -MAX_AHEAD_S else "ours", age)


def verify_all(heard: Iterable[Heard], token: str, now: float) -> tuple[list[Judged], list[InvalidInput]]:
    """Those that are announcements, judged, in the order of names; and what is wrong with each of the others."""
    judged: list[Judged] = []
    faults: list[InvalidInput] = []
    for one in heard:
        try:
            judged.append(verify(one, token, now))
        except InvalidInput as fault:
            faults.append(fault)
    return sorted(judged, key=lambda one: (one.announcement.name, one.announcement.address)), faults


def choose(judged: Sequence[Judged], name: str | None = None) -> Announcement:
    """The one cluster that may be believed, or the one of this name.

    Raises InvalidInput where several may be meant, Conflict where two heads claim the name or the clocks differ,
    Unauthorized where only other tokens' announcements were heard, and NotFound with what was heard.
    """
    wanted = [one for one in judged if name in (None, one.announcement.name)]
    ours = [one.announcement for one in wanted if one.standing == "ours"]
    if not ours:
        raise _why_none(judged, wanted, name)
    if len(names := sorted({one.name for one in ours})) > 1:
        raise InvalidInput.of("name", f"several clusters are announced here, choose one of {_listed(names)}")
    return _newest(ours)


def ignored(judged: Sequence[Judged], faults: Sequence[InvalidInput]) -> list[str]:
    """What counts for nothing, and why, in a few lines."""
    lines = [f"ignored: {one}" for one in judged if one.standing != "ours"]
    more = [f"ignored: {len(lines) - MOST_TOLD} more"] if len(lines) > MOST_TOLD else []
    unread = [f"ignored: {len(faults)} that cannot be read; the first: {faults[0]}"] if faults else []
    return [*lines[:MOST_TOLD], *more, *unread]


def _newest(ours: Sequence[Announcement]) -> Announcement:
    newest = max(ours, key=lambda one: (one.issued_at, one.address))
    lately = {one.address for one in ours if newest.issued_at - one.issued_at < GONE_S}
    if len(lately) > 1:
        raise Conflict(
            f"heads at {_listed(sorted(lately))} announce the same cluster {newest.name}: end one, give it another "
            "NOODLE_CLUSTER_NAME, or join by address"
        )
    return newest


def _why_none(judged: Sequence[Judged], wanted: Sequence[Judged], name: str | None) -> NoodleError:
    if untimely := [str(one) for one in wanted if one.standing in ("too old", "from the future")]:
        return Conflict(
            f"{_listed(untimely)}: set the clocks of both hosts; if they are right, somebody repeats what was said then"
        )
    if wanted:
        return Unauthorized(f"{_listed([str(one) for one in wanted])}: bring the token of the head's cluster here")
    return NotFound("cluster", name or "on this network", _known(judged)[:MOST_TOLD])


def _known(judged: Sequence[Judged]) -> list[str]:
    """The names that were heard, each with how many of its announcements count for nothing."""
    by_name = groupby(sorted(judged, key=_name_of), key=_name_of)
    return [_with_ignored(name, list(group)) for name, group in by_name]


def _with_ignored(name: str, group: Sequence[Judged]) -> str:
    foreign = sum(one.standing == "another token" for one in group)
    return f"{name} ({foreign} with another token, ignored)" if foreign else name


def _name_of(one: Judged) -> str:
    return one.announcement.name


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - MOST_TOLD} more" if len(words) > MOST_TOLD else ""
    return ", ".join(words[:MOST_TOLD]) + more


def _minutes(age_s: float) -> str:
    minutes = abs(age_s) / 60
    return f"{minutes:.0f} minutes ago" if age_s > 0 else f"{minutes:.0f} minutes in the future"
