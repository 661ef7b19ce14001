"""Hearing: what heads announce on this host's networks, and the one of them that is to be joined.

What is heard is taken as it comes, and not from a cache, in which a forged record would replace the real one. Nor is a
goodbye believed, which is not signed: who joins a head that has just left finds nobody there.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable

from zeroconf import RecordUpdate, RecordUpdateListener, ServiceBrowser, ServiceInfo, Zeroconf

from noodle_ray.entry.cluster.announcing import versions_here
from noodle_ray.entry.cluster.mdns import SERVICE, close_mdns, open_mdns
from noodle_ray.errors import Conflict, InvalidInput, Unavailable
from noodle_ray.nodes.announcement import Announcement
from noodle_ray.nodes.discovery import Heard, choose, ignored, verify, verify_all

TIMEOUT_S = 5.0
SETTLE_S = 2.0
"""How long others are waited for once the wanted one was heard; the question is asked a second time in it."""

MOST_HEARD = 1000
"""Records that are kept: who floods the network can keep us from hearing, but not fill our memory."""

HELP = (
    "Does the head run, with `noodle up --announce`? Is it on the same network, and may UDP port 5353 and multicast "
    "pass between? `noodle join ADDRESS` does without"
)
"""What to do where nothing was heard."""

Progress = Callable[[str], None]

_Record = tuple[str, bytes]
"""A text record as it came: whose, and what it says."""


class _Ear(RecordUpdateListener):
    """Hands on every text record of our kind of service; called on zeroconf's thread."""

    def __init__(self) -> None:
        self.records: queue.Queue[_Record] = queue.Queue(MOST_HEARD)

    def async_update_records(self, zc: Zeroconf, now: float, records: list[RecordUpdate]) -> None:
        for update in records:
            name, text = update.new.name, getattr(update.new, "text", None)
            if isinstance(text, bytes) and name.endswith(f".{SERVICE}") and not self.records.full():
                self.records.put_nowait((name, text))


def find(
    token: str,
    name: str | None = None,
    timeout_s: float = TIMEOUT_S,
    *,
    interface: str | None = None,
    progress: Progress = lambda said: None,
    clock: Callable[[], float] = time.time,
) -> Announcement:
    """The cluster of this name, or the only one, whose head is announced with this token; nothing is connected to.

    progress: told what was ignored, and why. Raises Unavailable where nothing was heard, Conflict where this host has
    other versions, and what `discovery.choose` and `hear` raise.
    """
    heard = hear(timeout_s, interface, lambda one: _is_wanted(one, token, name, clock()))
    if not heard:
        raise Unavailable(f"no cluster was heard within {timeout_s:g} s. {HELP}")
    judged, faults = verify_all(heard, token, clock())
    for said in ignored(judged, faults):
        progress(said)
    chosen = choose(judged, name)
    if said := chosen.mismatch(versions_here()):
        raise Conflict(said)
    return chosen


def _is_wanted(heard: Heard, token: str, name: str | None, now: float) -> bool:
    try:
        judged = verify(heard, token, now)
    except InvalidInput:
        return False
    return judged.standing == "ours" and name in (None, judged.announcement.name)


def hear(
    timeout_s: float = TIMEOUT_S, interface: str | None = None, wanted: Callable[[Heard], bool] | None = None
) -> list[Heard]:
    """All that is announced, for so long, or until a little after the first that is `wanted`.

    interface: this host's address on the network that is listened to; by default all networks but the loopback.
    Raises InvalidInput where the interface is not this host's, and Unavailable where mDNS cannot be spoken here.
    """
    ear = _Ear()
    zeroconf = open_mdns(interface)
    try:
        zeroconf.add_listener(ear, None)
        with ServiceBrowser(zeroconf, SERVICE, handlers=[_nothing]):
            return _collect(ear.records, timeout_s, wanted)
    finally:
        close_mdns(zeroconf)


def _nothing(**change: object) -> None:
    """A browser wants to tell somebody; what it asks for is heard by the ear."""


def _collect(records: queue.Queue[_Record], timeout_s: float, wanted: Callable[[Heard], bool] | None) -> list[Heard]:
    heard: dict[_Record, Heard] = {}
    deadline = time.monotonic() + timeout_s
    while (record := _next(records, deadline)) is not None:
        if record in heard or len(heard) >= MOST_HEARD:
            continue
        name, text = record
        one = heard[record] = Heard(name.removesuffix(f".{SERVICE}"), _properties(text))
        if wanted is not None and wanted(one):
            deadline = min(deadline, time.monotonic() + SETTLE_S)
    return list(heard.values())


def _next(records: queue.Queue[_Record], deadline: float) -> _Record | None:
    """The next one that comes in time."""
    left = deadline - time.monotonic()
    try:
        return records.get(timeout=left) if left > 0 else None
    except queue.Empty:
        return None


def _properties(text: bytes) -> dict[bytes, bytes | None]:
    return ServiceInfo(SERVICE, f"any.{SERVICE}", properties=text).properties
