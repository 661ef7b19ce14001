"""A state is offered until it is said to be kept, whoever asks."""

from __future__ import annotations

import asyncio

import pytest

from noodle_ray.errors import Conflict
from noodle_ray.runners.state_offer import StateOffer


async def test_is_fetched_and_then_kept() -> None:
    offer = StateOffer()
    fetching = asyncio.ensure_future(offer.next())
    keeping = asyncio.ensure_future(offer.keep(b"one"))
    assert await fetching == (1, b"one")
    assert not keeping.done()
    again = asyncio.ensure_future(offer.next(1))
    await keeping
    await asyncio.sleep(0)
    assert not again.done(), "there is no next one yet"
    keeping = asyncio.ensure_future(offer.keep(b"two"))
    assert await again == (2, b"two")
    again.cancel()


async def test_who_asks_for_the_first_time_gets_what_another_did_not_keep() -> None:
    offer = StateOffer()
    keeping = asyncio.ensure_future(offer.keep(b"one"))
    assert await offer.next() == await offer.next() == (1, b"one")
    fetching = asyncio.ensure_future(offer.next(1))
    await keeping
    fetching.cancel()


async def test_a_problem_is_told() -> None:
    offer = StateOffer()
    keeping = asyncio.ensure_future(offer.keep(b"one"))
    number, _ = await offer.next()
    fetching = asyncio.ensure_future(offer.next(number, Conflict("another has taken over")))
    with pytest.raises(Conflict, match="another has taken over"):
        await keeping
    fetching.cancel()


async def test_late_word_of_an_earlier_state_changes_nothing() -> None:
    offer = StateOffer()
    first = asyncio.ensure_future(offer.keep(b"one"))
    await offer.next()
    fetching = asyncio.ensure_future(offer.next(1))
    await first
    second = asyncio.ensure_future(offer.keep(b"two"))
    assert await fetching == (2, b"two")
    assert await offer.next(1) == (2, b"two") and not second.done()
    second.cancel()
