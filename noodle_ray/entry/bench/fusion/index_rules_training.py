"""Fits the rules that indexes of code and of texts come with, on the function finder's parts to fit and to validate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

from noodle_ray.entry.bench.fusion.function_cache import Kept
from noodle_ray.entry.bench.fusion.function_finder import FRAGMENTS, heard_of, index_of, questions
from noodle_ray.entry.bench.fusion.function_queries import FIT, SEED, TEST, Target, targets
from noodle_ray.fusion.fitting import Case, fit_rule
from noodle_ray.fusion.index import Index
from noodle_ray.fusion.index_entry import Entry, Query
from noodle_ray.fusion.index_rules import rule_path
from noodle_ray.fusion.rule import Rule

Progress = Callable[[str], None]
SHARE_OF_WORDS = 0.5
A_SETTING = 100
"""Questions a part and setting: enough for a dozen weights, and it fits within minutes."""


def train(cache_dir: Path, progress: Progress) -> dict[str, Rule]:
    """Writes and gives both rules, by kind of index."""
    kept, functions = Kept(cache_dir, progress), targets()
    rules = {}
    for kind, cases in (("code", _code_cases), ("text", _text_cases)):
        fit: list[Case] = []
        validation: list[Case] = []
        for target, case in cases(kept, functions):
            (fit if target.part == FIT else validation).append(case)
        progress(f"{kind}: {len(fit)} questions to fit, {len(validation)} to validate")
        fitted = {"data": DATA[kind], "fit": len(fit), "validation": len(validation), "entries": len(functions)}
        rules[kind] = fit_rule(fit, validation).model_copy(update={"fitted": fitted})
        rule_path(kind).write_text(rules[kind].model_dump_json(indent=1) + "\n")
    return rules


DATA = {
    "code": "function finder, all settings together: docstring, spoken docstring, fragments verbatim and renamed",
    "text": "docstrings of the function finder, by half of their words, read aloud, or by their functions' code",
}


def _code_cases(kept: Kept, functions: Sequence[Target]) -> Iterator[tuple[Target, Case]]:
    """Nobody tells an index whether a fragment was renamed: its rule is for all kinds of fragments at once."""
    heard = heard_of(kept, functions)
    index = index_of(functions, [target.code for target in functions], kept)
    for fragments, _ in FRAGMENTS.values():
        counts: dict[str, int] = {}
        for each in questions(functions, fragments.of(functions), heard, kept):
            part = each.target.part
            counts[part] = counts.get(part, 0) + 1
            if part != TEST and counts[part] <= A_SETTING:
                yield each.target, Case(index.search(each.query), each.right)


def _text_cases(kept: Kept, functions: Sequence[Target]) -> Iterator[tuple[Target, Case]]:
    texts = [target.summary for target in functions]
    halves = [_half_of(target) for target in functions]
    heard = heard_of(kept, functions)
    placed, asked = kept.texts(texts), kept.texts(halves)
    codes = kept.codes([target.code for target in functions])
    speech = dict(zip(heard, kept.texts(list(heard.values())), strict=True))
    index = Index(placed.shape[1])
    rows = zip(functions, placed, strict=True)
    index.put([Entry(target.key, text=target.summary, embeddings={"text": row}) for target, row in rows])
    for right, target in enumerate(functions):
        if target.part != TEST:
            embeddings = {"text": asked[right], "code": codes[right]}
            if target.key in speech:
                embeddings["audio"] = speech[target.key]
            query = Query(halves[right], target.code, heard.get(target.key), embeddings)
            yield target, Case(index.search(query), right)


def _half_of(target: Target) -> str:
    """Half of the docstring's words, drawn for the function, in their order."""
    words = target.summary.split()
    draw = Random(f"{SEED}/{target.key}")  # noqa: S311 (no secret)
    places = sorted(draw.sample(range(len(words)), max(1, round(SHARE_OF_WORDS * len(words)))))
    return " ".join(words[place] for place in places)
