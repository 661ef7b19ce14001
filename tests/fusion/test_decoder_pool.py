"""The pool of decoding processes: the same answers as in one process, and no file that hurts another's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable

import numpy as np
import psutil
import pytest
from fusion_media import picture
from hostile import jpeg_of_many_scans, one_colour_png
from mutations import FORMATS, real_file

from noodle_ray.errors import InvalidInput, NotFound, TooLarge, Unavailable
from noodle_ray.fusion import decoder_pool
from noodle_ray.fusion.decoder_pool import DecoderPool
from noodle_ray.fusion.decoding import decode
from noodle_ray.fusion.limits import DEFAULT, Limits

PATIENT = Limits(decoding_time_ms=60_000)
"""For tests of something else: a busy machine takes its time."""
SLOW = jpeg_of_many_scans(3000)
GOOD = picture((40, 30), color=(9, 99, 200))


@pytest.fixture
async def pool() -> AsyncIterator[DecoderPool]:
    async with DecoderPool(PATIENT) as opened:
        yield opened


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not reached():  # noqa: ASYNC110 - other processes tell nobody
            await asyncio.sleep(0.01)


def used_s(process_id: int) -> float:
    return psutil.Process(process_id).cpu_times().user


async def busy(pool: DecoderPool, count: int) -> list[int]:
    """The children with the first `count` files of a new pool, as soon as they decode."""
    numbers = pool.process_ids[:count]
    before = [used_s(number) for number in numbers]
    await until(lambda: all(used_s(n) > start + 0.05 for n, start in zip(numbers, before, strict=True)))
    return numbers


async def test_it_answers_as_one_process_does(pool: DecoderPool) -> None:
    for modality, names in FORMATS.items():
        for name in names:
            expected = decode(modality, real_file(name), DEFAULT)
            given = await pool.decode(modality, real_file(name))
            assert isinstance(given, np.ndarray) and isinstance(expected, np.ndarray)
            assert (given.dtype, given.flags.writeable) == (expected.dtype, True)
            np.testing.assert_array_equal(given, expected)
    assert await pool.decode("text", "\ufeffa cat") == "a cat"
    assert await pool.decode("code", "def f(): ...\n") == "def f(): ...\n"


async def test_content_of_the_wrong_kind(pool: DecoderPool) -> None:
    with pytest.raises(InvalidInput, match="image: must be a file's bytes"):
        await pool.decode("vision", "a cat")
    with pytest.raises(NotFound, match="known: text, audio, vision, code"):
        await pool.decode("smell", b"a rose")


async def test_one_that_takes_too_long_is_ended_and_its_child_replaced() -> None:
    async with DecoderPool(Limits(decoding_time_ms=400), children=1) as pool:
        (before,) = pool.process_ids
        with pytest.raises(TooLarge, match=r"image is too large: .* ms of decoding, allowed are 400"):
            await pool.decode("vision", SLOW)
        with pytest.raises(InvalidInput, match="no readable sound"):
            await pool.decode("audio", b"no sound")
        (after,) = pool.process_ids
        assert after != before and not psutil.pid_exists(before)


async def test_one_that_takes_too_much_memory_is_refused_by_its_living_child() -> None:
    limits = Limits(decoding_time_ms=60_000, decoding_bytes=64 * 2**20)
    async with DecoderPool(limits, children=1) as pool:
        before = pool.process_ids
        with pytest.raises(TooLarge, match="image is too large: 67108865 bytes of memory while decoded"):
            await pool.decode("vision", one_colour_png(6000))
        assert (await pool.decode("vision", GOOD)).shape == (30, 40, 3)  # type: ignore[union-attr]
        assert pool.process_ids == before


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGBUS])
async def test_one_that_crashes_its_child_is_the_only_one_that_fails(pool: DecoderPool, number: signal.Signals) -> None:
    crashing = asyncio.create_task(pool.decode("vision", SLOW))
    (victim,) = await busy(pool, 1)
    others = [asyncio.create_task(pool.decode("vision", GOOD)) for _ in range(10)]
    os.kill(victim, number)
    with pytest.raises(InvalidInput, match=f"image: broke its decoder .signal {number.name}."):
        await crashing
    assert len(await asyncio.gather(*others)) == 10
    await until(lambda: len(pool.process_ids) == 2 and victim not in pool.process_ids)


async def test_out_of_processor_time_is_too_large(pool: DecoderPool) -> None:
    slow = asyncio.create_task(pool.decode("vision", SLOW))
    (victim,) = await busy(pool, 1)
    os.kill(victim, signal.SIGXCPU)
    with pytest.raises(TooLarge, match="ms of decoding"):
        await slow


async def test_a_child_that_dies_while_idle_costs_nobody_a_picture(pool: DecoderPool) -> None:
    for victim in pool.process_ids:
        os.kill(victim, signal.SIGKILL)
    await until(lambda: pool.process_ids == [])
    shapes = [(await pool.decode("vision", GOOD)).shape for _ in range(4)]  # type: ignore[union-attr]
    assert shapes == [(30, 40, 3)] * 4


async def test_a_cancelled_one_that_waits_leaves_its_place(pool: DecoderPool) -> None:
    slow = [asyncio.create_task(pool.decode("vision", SLOW)) for _ in range(2)]
    await busy(pool, 2)
    waiting = [asyncio.create_task(pool.decode("vision", GOOD)) for _ in range(50)]
    await asyncio.sleep(0.05)
    for task in waiting[:-1]:
        task.cancel()
    for victim in pool.process_ids:
        os.kill(victim, signal.SIGKILL)
    assert (await waiting[-1]).shape == (30, 40, 3)  # type: ignore[union-attr]
    assert all(isinstance(each, InvalidInput) for each in await asyncio.gather(*slow, return_exceptions=True))
    assert all(task.cancelled() for task in waiting[:-1])


async def test_after_a_cancelled_one_the_next_gets_its_own_answer(pool: DecoderPool) -> None:
    for side in range(20, 60):
        task = asyncio.create_task(pool.decode("vision", picture((side, 10))))
        await asyncio.sleep(0.001 * (side % 3))
        task.cancel()
        shapes = await asyncio.gather(*(pool.decode("vision", picture((each, 10))) for each in range(1, 5)))
        assert [each.shape[1] for each in shapes] == [1, 2, 3, 4]  # type: ignore[union-attr]
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def open_and_close() -> None:
    pool = DecoderPool(PATIENT)
    await pool.start()
    numbers = pool.process_ids
    tasks = [asyncio.create_task(pool.decode("vision", content)) for content in (SLOW, SLOW, GOOD, GOOD)]
    await busy(pool, 2)
    await pool.close()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in outcomes] == [Unavailable] * 4
    with pytest.raises(Unavailable, match="the decoders are closed"):
        await pool.decode("vision", GOOD)
    assert not any(map(psutil.pid_exists, numbers))


async def test_close_leaves_no_process_and_no_file_descriptor() -> None:
    await open_and_close()  # the first time a loop opens what it keeps
    files, children = psutil.Process().num_fds(), psutil.Process().children()
    await open_and_close()
    assert (psutil.Process().num_fds(), psutil.Process().children()) == (files, children)


async def test_it_starts_by_itself_and_closes_unstarted() -> None:
    pool = DecoderPool(PATIENT, children=1)
    assert pool.process_ids == []
    await asyncio.gather(pool.start(), pool.decode("vision", GOOD), pool.decode("vision", GOOD))
    assert len(pool.process_ids) == 1
    await pool.close()
    await pool.close()
    await DecoderPool(PATIENT).close()


async def test_where_no_child_can_be_started_each_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_pool, "CHILD", "noodle_ray.no_such_module")
    pool = DecoderPool(PATIENT, children=1)
    with pytest.raises(Unavailable, match=r"no decoder can be started: exit code 1.*no_such_module"):
        await pool.start()
    with pytest.raises(Unavailable):
        await pool.decode("vision", GOOD)
    monkeypatch.undo()
    assert (await pool.decode("vision", GOOD)).shape == (30, 40, 3)  # type: ignore[union-attr]
    await pool.close()


async def test_a_child_may_write_no_file_and_open_few(pool: DecoderPool) -> None:
    child = psutil.Process(pool.process_ids[0])
    assert child.rlimit(psutil.RLIMIT_FSIZE) == child.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    assert child.rlimit(psutil.RLIMIT_NOFILE)[0] <= 32
    assert DEFAULT.decoding_bytes < child.rlimit(psutil.RLIMIT_AS)[1] < DEFAULT.decoding_bytes + 2**30
    names = {each.path for each in child.memory_maps()}
    assert not any("torch" in name or "/ray/" in name for name in names)


@pytest.mark.parametrize(
    ("modality", "answer"),
    [
        ("vision", ["array", [10, 10, 3], b"x"]),
        ("vision", ["array", [10, 10, 4], bytes(400)]),
        ("vision", ["array", [-1, -1, 3], bytes(3)]),
        ("vision", ["array", [0, 10, 3], b""]),
        ("vision", ["array", ["a", 10, 3], b""]),
        ("vision", ["array", [4000, 1, 3], bytes(12_000)]),
        ("audio", ["array", [2], bytes(7)]),
        ("audio", ["array", [0], b""]),
        ("audio", ["array", [2, 1], bytes(8)]),
        ("audio", ["array", [1], np.float32(np.nan).tobytes()]),
        ("audio", ["array", [1], np.float32(1.5).tobytes()]),
        ("audio", ["array", [500_000], bytes(2_000_000)]),
        ("audio", ["invalid", 5, ""]),
        ("audio", ["ready"]),
        ("audio", None),
    ],
)
def test_what_a_child_that_was_taken_over_may_answer(modality: str, answer: object) -> None:
    with pytest.raises(decoder_pool._Ended):
        decoder_pool._outcome(modality, answer, DEFAULT)
