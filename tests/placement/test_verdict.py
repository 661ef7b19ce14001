"""A verdict names what told the winner from the next best."""

from noodle_ray.placement.explanation import Candidate, Explanation
from noodle_ray.placement.verdict import MEANINGS, Verdict

NAMES = {"a": "gpu-a", "b": "gpu-b"}


def explained(**parts: dict[str, float]) -> Explanation:
    candidates = tuple(
        Candidate(node_id=name, score=-sum(costs.values()), parts=costs) for name, costs in parts.items()
    )
    return Explanation(policy="noodle", considered=3, filtered={}, candidates=candidates, chosen=candidates[0].node_id)


def test_the_parts_that_told_them_apart() -> None:
    verdict = Verdict.of(
        explained(a={"usable": 0.1, "worth": 0.2, "balance": 0.3}, b={"usable": 0.2, "worth": 0.5, "balance": 0.2})
    )
    assert verdict.better == {"worth": (0.2, 0.5), "usable": (0.1, 0.2)}
    assert verdict.sentence(NAMES) == (
        "gpu-a beats gpu-b by 0.300: it costs less in worth (0.200 against 0.500) and usable (0.100 against 0.200), "
        "though more in balance (0.300 against 0.200)."
    )


def test_of_many_parts_the_three_that_tell_most() -> None:
    verdict = Verdict.of(explained(a=dict.fromkeys("wxyz", 0.0), b={"w": 0.1, "x": 0.4, "y": 0.00001, "z": 0.2}))
    assert "in x (0.000 against 0.400), z (0.000 against 0.200) and w (0.000 against 0.100)." in verdict.sentence({})


def test_a_tiny_lead_is_still_a_number() -> None:
    assert "by 1e-05: it costs less in y (0.000 against 1e-05)" in Verdict.of(
        explained(a={"y": 0.0}, b={"y": 0.00001})
    ).sentence({})


def test_a_lone_one_and_equals() -> None:
    assert Verdict.of(explained(a={"x": 0.5})).sentence(NAMES) == "gpu-a is the only node that could take it."
    equals = Verdict.of(explained(a={"x": 0.5}, b={"x": 0.5}))
    assert equals.sentence(NAMES) == "gpu-a is as good as gpu-b; of equals the one with less free comes first."


def test_a_part_that_only_one_has_counts_as_nothing_for_the_other() -> None:
    assert Verdict.of(explained(a={}, b={"x": 0.5})).better == {"x": (0.0, 0.5)}


def test_meanings_are_of_parts_that_exist() -> None:
    assert {"usable", "worth", "balance", "left over", "scarcity"} <= set(MEANINGS)
