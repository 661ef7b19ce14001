"""Small packages at random, and every answer to a request for some of them, found by trying all."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from hypothesis import strategies as st

from noodle_ray.resolution.cases import is_answer
from noodle_ray.resolution.table import Packages

NAMES = ("a", "b", "c", "d")
VERSIONS = ("1.0.0", "2.0.0", "3.0.0")

constraints = st.sampled_from(
    ["*", ">=2.0.0", "<2.0.0", "==1.0.0", "==2.0.0", "!=2.0.0", ">=3.0.0", "<3.0.0", ">3.0.0"]
)
requests = st.dictionaries(st.sampled_from((*NAMES, "missing")), constraints, min_size=1, max_size=3)


@st.composite
def packages(draw: st.DrawFn, circles: bool = True) -> Packages:
    """Up to four packages in up to three versions; without circles, each needs later ones only."""
    drawn = {}
    for place, name in enumerate(NAMES):
        others = [other for other in NAMES if other != name] if circles else list(NAMES[place + 1 :])
        needs = st.dictionaries(st.sampled_from([*others, "missing"]), constraints, max_size=2)
        drawn[name] = draw(st.dictionaries(st.sampled_from(VERSIONS), needs, max_size=3))
    return drawn


def all_answers(table: Packages, request: Mapping[str, str]) -> list[dict[str, str]]:
    answers = []
    for combination in itertools.product(*([None, *table[name]] for name in table)):
        answer = {name: version for name, version in zip(table, combination, strict=True) if version is not None}
        if is_answer(table, request, answer):
            answers.append(answer)
    return answers
