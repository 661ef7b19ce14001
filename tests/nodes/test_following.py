"""What a holder has to do about its allocation, compared with where its work was last started."""

from typing import Any

import pytest

from noodle_ray.nodes.following import Confirm, End, Rest, Start, in_second_home, next_step
from noodle_ray.placement.allocation import Allocation, Bundle, Spare
from noodle_ray.placement.request import Request
from noodle_ray.resources import Demand

DEMAND = Demand(cpus=1)


def bundles(node_id: str) -> tuple[Bundle, ...]:
    return (Bundle(demand=DEMAND, node_id=node_id),)


def an_allocation(**fields: Any) -> Allocation:
    given = {"id": "a", "epoch": 1, "state": "held", "request": Request.of(DEMAND), "bundles": bundles("n1")}
    return Allocation(**{**given, "policy": "noodle", "created_at": 0.0, "on_loss": "restart", **fields})


READY = Spare(epoch=2, bundles=bundles("n2"), ready=True)


def test_whoever_works_at_home_rests() -> None:
    assert next_step(an_allocation(), started=1) == Rest()


def test_another_home_is_started_in() -> None:
    moved = an_allocation(epoch=3)
    assert next_step(moved, started=1) == Start(moved)


@pytest.mark.parametrize("state", ["waiting", "reserving"])
def test_between_two_homes_there_is_nothing_to_do(state: str) -> None:
    assert next_step(an_allocation(state=state, epoch=2), started=1) == Rest()


def test_a_move_is_started_then_confirmed_then_over() -> None:
    moving = an_allocation(spare=READY)
    step = next_step(moving, started=1)
    assert isinstance(step, Start)
    assert (step.home.group, step.home.node_id, step.home.spare) == ("a.2", "n2", None)
    assert next_step(moving, started=2) == Confirm(2)
    assert next_step(in_second_home(moving), started=2) == Rest()


def test_a_move_that_is_called_off_leads_back() -> None:
    assert next_step(an_allocation(), started=2) == Start(an_allocation())


def test_a_second_home_that_is_not_reserved_yet_is_no_home() -> None:
    assert next_step(an_allocation(spare=READY.model_copy(update={"ready": False})), started=1) == Rest()


def test_a_standby_stays_until_its_home_is_another() -> None:
    standby = an_allocation(on_loss="standby", spare=READY)
    assert next_step(standby, started=1) == Rest()
    assert next_step(in_second_home(standby), started=1) == Start(in_second_home(standby))


@pytest.mark.parametrize(
    ("allocation", "reason"),
    [
        (None, "it was released, or could not be held again"),
        (an_allocation(state="lost"), "it was lost with its node"),
        (an_allocation(state="releasing"), "it was released"),
    ],
)
def test_an_end_has_a_reason(allocation: Allocation | None, reason: str) -> None:
    assert next_step(allocation, started=1) == End(reason)
