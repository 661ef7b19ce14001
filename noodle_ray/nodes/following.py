"""Following an allocation: what its holder has to do, now that it has another home, is being moved, or is no more."""

from __future__ import annotations

from dataclasses import dataclass

from noodle_ray.placement.allocation import Allocation


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing is to be done until it changes."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start the work in the home of this allocation, which is its present one, or the one that it is to move to."""

    home: Allocation


@dataclass(frozen=True, slots=True)
class Confirm:
    """The work runs in the second home of this epoch: say so, that the first may be given up."""

    epoch: int


@dataclass(frozen=True, slots=True)
class End:
    """It is held no more, and will not be held again."""

    reason: str


Step = Rest | Start | Confirm | End


def next_step(allocation: Allocation | None, started: int) -> Step:
    """What its holder has to do. `started`: the epoch in which the work was last started; None: there is no such row.

    After each step it is asked again, until there is nothing to do.
    """
    if allocation is None:
        return End("it was released, or could not be held again")
    match allocation.state:
        case "lost":
            return End("it was lost with its node")
        case "releasing":
            return End("it was released")
        case "held":
            return _step_of_held(allocation, started)
    return Rest()  # its home is gone, and the next one is looked for


def _step_of_held(allocation: Allocation, started: int) -> Step:
    """A standby's second home is to fall back on, not to move to: that becomes the present one by itself."""
    spare = allocation.spare
    if spare is not None and spare.ready and allocation.on_loss != "standby":
        return Confirm(spare.epoch) if started == spare.epoch else Start(in_second_home(allocation))
    # Not "newer than": whoever started in a second home that was then given up belongs into the first again.
    return Rest() if started == allocation.epoch else Start(allocation)


def in_second_home(allocation: Allocation) -> Allocation:
    """The allocation as it will be after its move."""
    spare = allocation.spare
    assert spare is not None
    return allocation.model_copy(update={"epoch": spare.epoch, "bundles": spare.bundles, "spare": None})
