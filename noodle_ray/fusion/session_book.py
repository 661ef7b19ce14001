"""The sessions of all clients: opened, remembered, forgotten, and none of them to be found by others."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from noodle_ray.errors import CorruptData, LimitReached, NotFound
from noodle_ray.fusion.context import EnhancedContext, MemoryLimits
from noodle_ray.fusion.remembered import Remembered, Turn
from noodle_ray.settings import Settings
from noodle_ray.store.changes import Change, Delete, Document, Put

SESSIONS = "sessions"
"""The table in which sessions are kept."""
ID_BYTES = 24


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How many sessions there may be, and how much each remembers."""

    sessions: int
    memory: MemoryLimits

    @classmethod
    def of(cls, settings: Settings) -> SessionLimits:
        memory = MemoryLimits(
            turns=settings.fusion_session_turns,
            half_life_s=settings.fusion_session_half_life_ms / 1000,
            ttl_s=settings.fusion_session_ttl_ms / 1000,
        )
        return cls(settings.fusion_sessions, memory)


class SessionBook:
    """All sessions, in memory.

    A session's id is the right to use it: 192 random bits that only whoever opened it was told. Nobody can list ids,
    not even from what is kept: sessions are kept under their ids' SHA-256. Where there are too many, none is opened
    (LimitReached) rather than another client's pushed out; idle ones go by themselves.

    What changes something gives what must be kept of it, for a shell to write. `now`: seconds since the epoch.
    """

    def __init__(self, limits: SessionLimits, new_id: Callable[[], str] | None = None) -> None:
        self._limits, self._new_id = limits, new_id or _new_id
        self._sessions: dict[str, EnhancedContext] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, now: float) -> tuple[str, list[Change]]:
        """A new session's id. Raises LimitReached."""
        gone = self.expire(now) if len(self) >= self._limits.sessions else []
        if len(self) >= self._limits.sessions:
            raise LimitReached("sessions", self._limits.sessions, "NOODLE_FUSION_SESSIONS")
        session = self._new_id()
        key = _key(session)
        self._sessions[key] = EnhancedContext(self._limits.memory, now)
        return session, [*gone, self._kept(key)]

    def remembered(self, session: str, now: float) -> Remembered:
        """Raises NotFound where there is no such session (any more)."""
        return self._live(session, now).remembered(now)

    def note(self, session: str, turn: Turn, now: float) -> list[Change]:
        """Adds a turn. Raises NotFound."""
        self._live(session, now).note(turn, now)
        return [self._kept(_key(session))]

    def forget(self, session: str, now: float) -> list[Change]:
        """Ends a session, and all that it remembers with it. Raises NotFound."""
        self._live(session, now)
        del self._sessions[_key(session)]
        return [Delete(SESSIONS, _key(session))]

    def expire(self, now: float) -> list[Change]:
        """Ends those that have been idle for too long."""
        gone = [key for key, context in self._sessions.items() if context.is_expired(now)]
        for key in gone:
            del self._sessions[key]
        return [Delete(SESSIONS, key) for key in gone]

    def recover(self, rows: Mapping[str, Document]) -> dict[str, CorruptData]:
        """Takes in what was kept, and tells of each row that cannot be read: one is no reason to forget the others."""
        damaged = {}
        for key, document in rows.items():
            try:
                self._sessions[key] = EnhancedContext.from_json(document, self._limits.memory)
            except CorruptData as error:
                damaged[key] = error
        return damaged

    def _live(self, session: str, now: float) -> EnhancedContext:
        context = self._sessions.get(_key(session))
        if context is None or context.is_expired(now):
            # Not its id: that is the right to use it, and messages are logged.
            raise NotFound("session", f"{session[:4]}…")
        return context

    def _kept(self, key: str) -> Change:
        return Put(SESSIONS, key, self._sessions[key].to_json())


def _new_id() -> str:
    """Begins with a letter, for a command line takes what begins with a hyphen for an option."""
    return "s" + secrets.token_urlsafe(ID_BYTES)


def _key(session: str) -> str:
    return sha256(session.encode("utf-8", "surrogatepass")).hexdigest()
