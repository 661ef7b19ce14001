"""Checkpoints: what a kept state covers, who waits for it, and what becomes of those where it cannot be kept."""

from __future__ import annotations

import asyncio

import pytest

from noodle_ray.errors import CallInterrupted, Conflict, ModuleFailed, Unavailable
from noodle_ray.runners.checkpoints import Checkpointer


class Store:
    """What a checkpointer is given: a module whose state is the number of its calls, and a registry that keeps it."""

    def __init__(self, durable: bool, checkpoint_s: float = 0.02, wait_s: float = 5.0) -> None:
        self.calls = 0
        self.kept: list[int] = []
        self.errors: list[Exception] = []
        """What the next keeps raise."""
        self.broken: Exception | None = None
        """What exporting raises."""
        self.open = asyncio.Event()
        self.open.set()
        self.keeping = 0
        self.failures: list[Exception] = []
        self.checkpoints = Checkpointer(
            "prog",
            self.export,
            self.keep,
            durable,
            checkpoint_s,
            retry_s=0.02,
            wait_s=wait_s,
            on_failure=self.failures.append,
        )

    async def call(self) -> None:
        self.calls += 1
        await self.checkpoints.call_ended("go")

    async def export(self) -> bytes:
        if self.broken is not None:
            raise self.broken
        return str(self.calls).encode()

    async def keep(self, state: bytes) -> None:
        assert self.keeping == 0, "one at a time"
        self.keeping += 1
        try:
            await self.open.wait()
            await asyncio.sleep(0.001)
            if self.errors:
                raise self.errors.pop(0)
            self.kept.append(int(state))
        finally:
            self.keeping -= 1


class TestDurable:
    async def test_a_call_is_answered_when_its_state_is_kept(self) -> None:
        store = Store(durable=True)
        await store.call()
        assert store.kept == [1]
        await store.call()
        assert store.kept == [1, 2]

    async def test_those_that_end_meanwhile_share_the_next_one(self) -> None:
        store = Store(durable=True)
        store.open.clear()
        first = asyncio.ensure_future(store.call())
        await asyncio.sleep(0.01)
        others = [asyncio.ensure_future(store.call()) for _ in range(50)]
        await asyncio.sleep(0.01)
        assert not first.done()
        store.open.set()
        await first
        assert store.kept == [1] and not any(other.done() for other in others)
        await asyncio.gather(*others)
        assert store.kept == [1, 51]

    async def test_is_tried_again_where_the_registry_is_away(self) -> None:
        store = Store(durable=True)
        store.errors = [Unavailable("away")] * 3
        await asyncio.gather(store.call(), store.call())
        assert store.kept == [2]
        assert [str(failure) for failure in store.failures] == ["away"] * 3

    async def test_not_for_ever(self) -> None:
        store = Store(durable=True, wait_s=0.05)
        store.errors = [Unavailable("away")] * 1000
        with pytest.raises(CallInterrupted, match=r"the call of prog\.go was interrupted: its state could not be kept"):
            await store.call()
        store.errors = []
        await store.call()
        assert store.kept[-1] == 2

    async def test_is_fenced_where_another_host_has_taken_over(self) -> None:
        store = Store(durable=True)
        store.errors = [Conflict("epoch 1 is over")]
        store.open.clear()
        calls = [asyncio.ensure_future(store.call())]
        await asyncio.sleep(0.01)
        calls += [asyncio.ensure_future(store.call()) for _ in range(2)]
        await asyncio.sleep(0.01)
        store.open.set()
        for call in [*calls, asyncio.ensure_future(store.call())]:
            with pytest.raises(CallInterrupted) as raised:
                await call
            assert isinstance(raised.value.__cause__, Conflict)
        await asyncio.sleep(0.05)
        assert store.kept == []
        store.checkpoints.start()
        await store.call()
        assert len(store.kept) == 1, "it has given back"

    @pytest.mark.parametrize("error", [ModuleFailed("prog", "no state"), ValueError("a fault of ours")])
    async def test_what_the_export_raises_comes_out(self, error: Exception) -> None:
        store = Store(durable=True)
        store.broken = error
        with pytest.raises(type(error)):
            await store.call()
        assert store.failures == [error]
        store.broken = None
        await store.call()
        assert store.kept == [2]

    async def test_who_gave_up_is_not_waited_for(self) -> None:
        store = Store(durable=True)
        store.open.clear()
        calls = [asyncio.ensure_future(store.call()) for _ in range(2)]
        await asyncio.sleep(0.01)
        later = asyncio.ensure_future(store.call())
        await asyncio.sleep(0.01)
        calls[0].cancel()
        later.cancel()
        await asyncio.sleep(0.01)
        store.open.set()
        await calls[1]
        assert calls[0].cancelled() and later.cancelled()


class TestFromTimeToTime:
    async def test_one_for_all_calls_within_the_time(self) -> None:
        store = Store(durable=False, checkpoint_s=0.05)
        for _ in range(5):
            await store.call()
        assert store.kept == []
        await asyncio.sleep(0.1)
        assert store.kept == [5]
        await asyncio.sleep(0.1)
        assert store.kept == [5]
        await store.call()
        await asyncio.sleep(0.1)
        assert store.kept == [5, 6]

    async def test_one_that_ends_while_it_is_kept_has_another(self) -> None:
        store = Store(durable=False)
        store.open.clear()
        await store.call()
        await asyncio.sleep(0.04)
        await store.call()
        store.open.set()
        await asyncio.sleep(0.06)
        assert store.kept == [1, 2]

    async def test_is_tried_again(self) -> None:
        store = Store(durable=False)
        store.errors = [Unavailable("away")] * 2
        await store.call()
        await asyncio.sleep(0.15)
        assert store.kept == [1]

    async def test_failures_are_told_and_it_tries_again_by_itself(self) -> None:
        store = Store(durable=False)
        store.broken = ModuleFailed("prog", "no state")
        await store.call()
        await asyncio.sleep(0.05)
        assert set(store.failures) == {store.broken} and len(store.failures) >= 2, "it is tried again by itself"
        store.broken = None
        await store.call()
        await asyncio.sleep(0.05)
        assert store.kept == [2]

    async def test_one_that_is_fenced_is_quiet(self) -> None:
        store = Store(durable=False)
        store.errors = [Conflict("epoch 1 is over")]
        await store.call()
        await asyncio.sleep(0.05)
        await store.call()
        await asyncio.sleep(0.05)
        assert (store.kept, len(store.failures)) == ([], 1)


class TestStopping:
    async def test_waits_for_what_is_being_kept_and_keeps_nothing_more(self) -> None:
        store = Store(durable=True)
        store.open.clear()
        first = asyncio.ensure_future(store.call())
        await asyncio.sleep(0.01)
        second = asyncio.ensure_future(store.call())
        stopping = asyncio.ensure_future(store.checkpoints.stop())
        await asyncio.sleep(0.01)
        assert not stopping.done()
        store.open.set()
        await stopping
        assert store.kept == [1]
        await asyncio.sleep(0.05)
        assert store.kept == [1] and not first.done() and not second.done()
        store.checkpoints.start()
        await asyncio.gather(first, second)
        assert store.kept == [1, 2]

    async def test_ends_the_wait_for_the_next_one(self) -> None:
        store = Store(durable=False, checkpoint_s=60)
        await store.call()
        await store.checkpoints.stop()  # before it has begun
        store.checkpoints.start()
        await asyncio.sleep(0.01)
        await store.checkpoints.stop()
        await store.call()
        await asyncio.sleep(0.01)
        assert store.kept == []

    async def test_a_keep_that_failed_meanwhile(self) -> None:
        store = Store(durable=False, checkpoint_s=0.001)
        store.open.clear()
        await store.call()
        await asyncio.sleep(0.02)
        store.errors = [Conflict("epoch 1 is over")]
        stopping = asyncio.ensure_future(store.checkpoints.stop())
        await asyncio.sleep(0.01)
        store.open.set()
        await stopping
        store.checkpoints.start()
        await asyncio.sleep(0.02)
        assert store.kept == [1]
