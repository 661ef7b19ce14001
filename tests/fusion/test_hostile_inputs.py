"""Hostile content through the decoders: the error that is expected, with the modality in its message."""

from __future__ import annotations

import pytest
from hostile import HOSTILE, Hostile

from noodle_ray.errors import InvalidInput, NoodleError, TooLarge
from noodle_ray.fusion.decoder_pool import DecoderPool
from noodle_ray.fusion.decoding import decode
from noodle_ray.fusion.limits import DEFAULT
from noodle_ray.fusion.modality import FIELD_OF, MODALITIES

UNBOUNDED = [case for case in HOSTILE if not case.bounded]


def assert_expected(case: Hostile, error: NoodleError | None) -> None:
    assert (type(error) if error else None) in case.expected, f"{case}: {error!r}"
    if error is not None:
        assert FIELD_OF[case.modality] in str(error)
        assert len(str(error)) < 500


def test_there_are_cases_of_every_kind() -> None:
    assert {case.modality for case in HOSTILE} == set(MODALITIES)
    assert {kind for case in HOSTILE for kind in case.expected} == {None, InvalidInput, TooLarge}
    assert len({str(case) for case in HOSTILE}) == len(HOSTILE) > 80


@pytest.mark.filterwarnings("default")  # as outside of tests: what Pillow warns of is no error yet
@pytest.mark.parametrize("case", UNBOUNDED, ids=str)
def test_each_is_refused_in_one_process(case: Hostile) -> None:
    error = None
    try:
        decode(case.modality, case.content(), DEFAULT)
    except (InvalidInput, TooLarge) as caught:
        error = caught
    assert_expected(case, error)


async def test_each_is_refused_by_the_pool_which_survives_them_all() -> None:
    async with DecoderPool() as pool:
        for case in HOSTILE:
            error: NoodleError | None = None
            try:
                await pool.decode(case.modality, case.content())
            except (InvalidInput, TooLarge) as caught:
                error = caught
            if not (isinstance(error, TooLarge) and "ms" in error.unit and not case.bounded):  # a very busy machine
                assert_expected(case, error)
