"""Sessions: whoever has an id may use it, nobody else; there are never too many, and none outlives its time."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from noodle_ray.errors import CorruptData, LimitReached, NotFound
from noodle_ray.fusion.context import MemoryLimits
from noodle_ray.fusion.remembered import Turn
from noodle_ray.fusion.session_book import SESSIONS, SessionBook, SessionLimits
from noodle_ray.settings import Settings
from noodle_ray.store.changes import Change, Delete, Put

LIMITS = SessionLimits(sessions=3, memory=MemoryLimits(turns=2, half_life_s=10.0, ttl_s=100.0))
TURN = Turn("a", np.array([1, 0], np.float32), "yes")


def test_limits_are_settings() -> None:
    limits = SessionLimits.of(Settings(fusion_sessions=7, fusion_session_ttl_ms=2500))
    assert (limits.sessions, limits.memory) == (7, MemoryLimits(16, 300.0, 2.5))


def test_ids_cannot_be_guessed_and_are_not_kept() -> None:
    book = SessionBook(LIMITS)
    (one, changes), (other, _) = book.open(0.0), book.open(0.0)
    assert one != other and len(one) >= 32
    book_changes = [*changes, *book.note(one, TURN, 1.0)]
    assert one not in repr(book_changes) and {change.table for change in book_changes} == {SESSIONS}


def test_the_session_of_another_is_not_there() -> None:
    book = SessionBook(LIMITS)
    session, _ = book.open(0.0)
    for stranger in ("", session[:-1], session + "x", "\ud800"):
        for use in (
            lambda name: book.remembered(name, 1.0),
            lambda name: book.note(name, TURN, 1.0),
            lambda name: book.forget(name, 1.0),
        ):
            with pytest.raises(NotFound):
                use(stranger)
    assert book.remembered(session, 1.0).turns == 0


def test_an_error_does_not_tell_the_id() -> None:
    book = SessionBook(LIMITS)
    session, _ = book.open(0.0)
    book.forget(session, 0.0)
    with pytest.raises(NotFound) as caught:
        book.remembered(session, 0.0)
    assert session not in str(caught.value.to_json())


def test_a_full_book_opens_none_and_pushes_none_out() -> None:
    book = SessionBook(LIMITS)
    opened = [book.open(float(at))[0] for at in range(3)]
    with pytest.raises(LimitReached, match="NOODLE_FUSION_SESSIONS"):
        book.open(50.0)
    assert all(book.remembered(session, 50.0).turns == 0 for session in opened)


def test_idle_ones_make_room() -> None:
    book = SessionBook(LIMITS)
    opened = [book.open(0.0)[0] for _ in range(3)]
    book.note(opened[0], TURN, 60.0)
    _, changes = book.open(110.0)
    assert [type(change) for change in changes] == [Delete, Delete, Put]
    assert book.remembered(opened[0], 110.0).turns == 1
    with pytest.raises(NotFound):
        book.remembered(opened[1], 110.0)


def test_damaged_rows_are_said_so() -> None:
    book = SessionBook(LIMITS)
    damaged = book.recover({"k": {"turns": "none"}, "well": {"used_at": 0, "turns": []}})
    assert list(damaged) == ["k"] and isinstance(damaged["k"], CorruptData)
    assert len(book) == 1


class Sessions(RuleBasedStateMachine):
    """Any history, against a plain account of it: which sessions there are, and when each was last used."""

    def __init__(self) -> None:
        super().__init__()
        self.book, self.now = SessionBook(LIMITS), 0.0
        self.used: dict[str, float] = {}  # in the order of opening: ids are random, and an order by them would be, too
        self.turns: dict[str, int] = {}
        self.rows: dict[str, object] = {}

    def keep(self, changes: list[Change]) -> None:
        for change in changes:
            if isinstance(change, Put):
                self.rows[change.key] = json.loads(json.dumps(change.document))
            else:
                del self.rows[change.key]

    def live(self) -> list[str]:
        return [name for name, at in self.used.items() if self.now < at + LIMITS.memory.ttl_s]

    @rule(seconds=st.floats(0, 60))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def open(self) -> None:
        if len(self.live()) >= LIMITS.sessions:
            with pytest.raises(LimitReached):
                self.book.open(self.now)
            return
        name, changes = self.book.open(self.now)
        self.keep(changes)
        self.used[name], self.turns[name] = self.now, 0

    @precondition(lambda self: self.used)
    @rule(data=st.data())
    def use(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(list(self.used)))
        if name not in self.live():
            with pytest.raises(NotFound):
                self.book.note(name, TURN, self.now)
            return
        self.keep(self.book.note(name, TURN, self.now))
        self.used[name] = self.now
        self.turns[name] = min(self.turns[name] + 1, LIMITS.memory.turns)

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.live()))
        self.keep(self.book.forget(name, self.now))
        del self.used[name]

    @rule()
    def expire(self) -> None:
        self.keep(self.book.expire(self.now))
        assert len(self.book) == len(self.live())

    @rule()
    def restart(self) -> None:
        self.book = SessionBook(LIMITS)
        self.book.recover(self.rows)  # type: ignore[arg-type]

    @invariant()
    def there_are_never_too_many(self) -> None:
        assert len(self.book) <= LIMITS.sessions

    @invariant()
    def what_is_kept_is_what_is_known(self) -> None:
        assert len(self.rows) == len(self.book)

    def teardown(self) -> None:
        for name in self.live():
            assert self.book.remembered(name, self.now).turns == self.turns[name]


TestSessions = Sessions.TestCase
TestSessions.settings = hypothesis_settings(max_examples=100, stateful_step_count=30, deadline=None)
