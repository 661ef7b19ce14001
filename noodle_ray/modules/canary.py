"""Whether a new version does worse than the one before, told from the calls that were tried on it."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, lgamma

from noodle_ray.modules.call_stats import CallStats

IDLE_S = 0.3
"""A module that nobody calls for so long is not kept waiting for calls."""

EARLY_CHANCE, LAST_CHANCE = 0.001, 0.01
"""How improbable more failures must be by chance: while more calls are awaited, and when no more are."""

LEAST_FAILURES = 2
"""One alone may be anybody's: the caller's network, a moment."""

SLOWER, SLOWER_BY_MS, SLOW_CALLS = 3.0, 20.0, 10
"""A median of so many times the other's, and so much more, over at least so many calls, is too slow."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """`problem` says why the new version will not do; it is empty where it will."""

    problem: str = ""


@dataclass(frozen=True, slots=True)
class Trial:
    """How a new version is tried: on so many calls, or on fewer when the time is over."""

    calls: int
    timeout_s: float

    def judge(self, new: CallStats, old: CallStats, beside: CallStats, elapsed_s: float) -> Judgement | None:
        """What the calls tell, None where more are awaited.

        `new` are those of the new version, `old` all that the one before ever had, `beside` those it had meanwhile.
        """
        tried = new.answered + new.failed
        is_idle = elapsed_s >= IDLE_S and not (
            tried + new.in_flight + beside.answered + beside.failed + beside.in_flight
        )
        is_over = tried >= self.calls or elapsed_s >= self.timeout_s or is_idle
        if problem := _failing(new, old, LAST_CHANCE if is_over else EARLY_CHANCE) or _slow(
            new, beside if beside.answered else old
        ):
            return Judgement(problem)
        return Judgement() if is_over else None


def _failing(new: CallStats, old: CallStats, chance: float) -> str:
    tried, before = new.answered + new.failed, old.answered + old.failed
    if new.failed < LEAST_FAILURES:
        return ""
    # Without any before, there is nothing to compare with.
    is_worse = chance_of_more(new.failed, tried, old.failed, before) < chance if before else new.failed == tried >= 3
    return f"{new.failed} of {tried} calls failed, {old.failed} of {before} before" if is_worse else ""


def chance_of_more(failed: int, tried: int, failed_before: int, before: int) -> float:
    """How probable so many failures or more are, if both versions fail equally often.

    Fisher's exact test, one-sided (R. A. Fisher, 1922): which calls failed is drawn from all of them.
    """
    calls, failures = tried + before, failed + failed_before
    possible = range(max(failed, failures - before), min(tried, failures) + 1)
    all_ways = _log_ways(calls, failures)
    # By logarithms: a busy module has a million calls behind it, and this is asked twenty times a second.
    return sum(exp(_log_ways(tried, k) + _log_ways(before, failures - k) - all_ways) for k in possible)


def _log_ways(of: int, some: int) -> float:
    """The logarithm of how many ways there are to choose some of them."""
    return lgamma(of + 1) - lgamma(some + 1) - lgamma(of - some + 1)


def _slow(new: CallStats, beside: CallStats) -> str:
    if new.answered < SLOW_CALLS or beside.answered < SLOW_CALLS:
        return ""
    took, took_before = new.median_ms, beside.median_ms
    if took is None or took_before is None or took <= SLOWER * took_before or took <= took_before + SLOWER_BY_MS:
        return ""
    return f"the middle call took {took:.3g} ms, {took_before:.3g} ms on the version before"
