"""What is noted in a run: requests, faults, and whether the system was whole. Times are seconds from its start."""

from __future__ import annotations

from dataclasses import dataclass

from noodle_ray.entry.bench.chaos.schedule import Fault


@dataclass(frozen=True, slots=True)
class Probe:
    """One request, or two that belong together. due_s: when it was to be sent; sent_s: when it was.

    ended_s: when it was answered or given up. answered: whether it was, with what was asked for. status: HTTP's of the
    last answer, 0 where none came. address: who gave it. retried: a second address was asked.
    """

    route: str
    due_s: float
    sent_s: float
    ended_s: float
    answered: bool
    status: int = 0
    address: str = ""
    retried: bool = False
    problem: str = ""

    @property
    def ms(self) -> float:
        """From when it was due."""
        return (self.ended_s - self.due_s) * 1000


@dataclass(frozen=True, slots=True)
class Inflicted:
    """A fault as it was inflicted. healed_s: when it was undone; of a killed process the time of its death.

    problem: why it could not be inflicted; "" where it was.
    """

    fault: Fault
    injected_s: float
    healed_s: float
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at the system. missing: what was not there; nothing: it was whole."""

    at_s: float
    missing: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        return not self.missing
