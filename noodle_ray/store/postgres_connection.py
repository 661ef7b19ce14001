"""A connection to PostgreSQL that gives up on a server that does not answer, however it went away."""

from __future__ import annotations

from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen

T = TypeVar("T")

CONNECT_S = 5
ANSWER_S = 5.0
"""How long the server may take for one statement. It is told the same, and gives up a little earlier."""

TCP = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 5_000,
}
"""A cable that was pulled is noticed after ten seconds or so where nothing is sent, else after five."""

SERVER = {
    "statement_timeout": "4500ms",
    "idle_in_transaction_session_timeout": "15s",
    "tcp_keepalives_idle": "5s",
    "tcp_keepalives_interval": "2s",
    "tcp_keepalives_count": "3",
}
"""What the server does on its side: connections and locks of a host of ours that vanished are free again in seconds."""


def arguments(application: str) -> dict[str, Any]:
    """How we connect, where the URL says nothing else. `application`: the name by which the server lists us."""
    options = " ".join(f"-c {name}={value}" for name, value in SERVER.items())
    return {"application_name": application, "connect_timeout": CONNECT_S, **TCP, "options": options}


class TimedConnection(psycopg.Connection[Any]):
    """Raises OperationalError, and is closed, where an answer takes longer than `answer_s` seconds.

    A server whose processes stand still keeps its connections, and its kernel acknowledges what is sent: neither TCP
    nor the server's own timeouts notice. A transaction that is given up so is not committed behind our back, unless it
    was its commit that had no answer; it then holds its rows until it is through, and who makes the change again waits.
    """

    answer_s: float = ANSWER_S

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.answer_s)
        except psycopg.errors._WaitTimeout:
            self.close()
            raise psycopg.OperationalError(f"the server did not answer within {self.answer_s:g} s") from None
