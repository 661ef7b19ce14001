"""Task 2: a function among a thousand, by its docstring, a fragment of its code, the docstring read aloud, or several.

The functions are the standard library's (`datasets.python_functions`), their own names masked and their docstrings not
in the index. Every function is a question: half of them test, a quarter fits, a quarter validates, by a hash of the
name. Three lines are drawn from places whose form no other function has, for nobody could tell whose they are; single
lines may be anybody's. Variables are renamed to real names of other functions. The docstrings of SPOKEN functions a
part are read aloud by artificial voices (espeak-ng), other voices in each part, and heard by the pack's speech encoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from noodle_ray.entry.bench.fusion.function_cache import Kept
from noodle_ray.entry.bench.fusion.function_queries import FIT, TEST, VALIDATION, Fragments, Target, targets
from noodle_ray.entry.bench.fusion.function_rivals import rivals_of
from noodle_ray.entry.bench.fusion.task import Goal, Progress, Setting, Task
from noodle_ray.entry.training.voices import VOICES_TEST, VOICES_TRAIN, VOICES_VALIDATION
from noodle_ray.fusion.fitting import Case
from noodle_ray.fusion.index import Index
from noodle_ray.fusion.index_entry import Entry, Query

SPOKEN = 150
VOICES = {FIT: VOICES_TRAIN, VALIDATION: VOICES_VALIDATION, TEST: VOICES_TEST}

RENAMED_GOAL = Goal("accuracy_percent", "code", 98.0)
TOGETHER_GOAL = Goal("gain_points", "text+code", 10.0)
DOCSTRING_GOAL = Goal("mrr", "text", 0.55)
COVERED = Goal("coverage_percent", "text+code", 85.0)

FRAGMENTS: dict[str, tuple[Fragments, tuple[Goal, ...]]] = {
    "three lines": (Fragments(3), (COVERED,)),
    "three lines renamed": (Fragments(3, renames=True), (RENAMED_GOAL, COVERED)),
    "three lines, one missing": (Fragments(3, gap=True), (COVERED,)),
    "three lines renamed, one missing": (Fragments(3, renames=True, gap=True), (COVERED,)),
    "one line": (Fragments(1), ()),
    "one line renamed": (Fragments(1, renames=True), (TOGETHER_GOAL,)),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A function that is asked for, its number in the index, and what is asked."""

    target: Target
    right: int
    query: Query


def settings(cache_dir: Path, progress: Progress) -> Iterator[Setting]:
    """Raises Unavailable without espeak-ng or the pack."""
    kept, functions = Kept(cache_dir, progress), targets()
    heard = heard_of(kept, functions)
    index = index_of(functions, [target.code for target in functions], kept)
    for name, (fragments, goals) in FRAGMENTS.items():
        progress(f"function finder: {name}")
        yield _setting(name, index, functions, fragments.of(functions), heard, kept, goals)
    nothing: list[str | None] = [None] * len(functions)
    yield _setting("docstring", index, functions, nothing, heard, kept, (DOCSTRING_GOAL,))
    shown = index_of(functions, [target.named_code for target in functions], kept)
    yield _setting("docstring, names shown", shown, functions, nothing, heard, kept, ())


def index_of(functions: Sequence[Target], codes: Sequence[str], kept: Kept) -> Index:
    """The functions by their code alone."""
    rows = kept.codes(codes)
    index = Index(rows.shape[1])
    index.put(
        [
            Entry(target.key, code=code, embeddings={"code": row})
            for target, code, row in zip(functions, codes, rows, strict=True)
        ]
    )
    return index


def heard_of(kept: Kept, functions: Sequence[Target]) -> dict[str, str]:
    """What the speech encoder made of the docstrings that are read aloud, by the function's key."""
    asked = []
    for part, voices in VOICES.items():
        own = [target for target in functions if target.part == part][:SPOKEN]
        asked += [(target, voices[number % len(voices)]) for number, target in enumerate(own)]
    heard = kept.heard([(target.summary, voice) for target, voice in asked])
    return {target.key: text for (target, _), text in zip(asked, heard, strict=True)}


def questions(
    functions: Sequence[Target], fragments: Sequence[str | None], heard: Mapping[str, str], kept: Kept
) -> list[Asked]:
    """One question a function that has a fragment; where no function has one, of all functions."""
    texts, spoken = kept.texts([target.summary for target in functions]), kept.texts(list(heard.values()))
    speech = dict(zip(heard, spoken, strict=True))
    codes = iter(kept.codes([fragment for fragment in fragments if fragment]))
    found = []
    for right, (target, fragment) in enumerate(zip(functions, fragments, strict=True)):
        embeddings = {"text": texts[right]}
        if fragment:
            embeddings["code"] = next(codes)
        if target.key in heard:
            embeddings["audio"] = speech[target.key]
        if fragment or not any(fragments):
            query = Query(target.summary, fragment, heard.get(target.key), embeddings)
            found.append(Asked(target, right, query))
    return found


def _setting(
    name: str,
    index: Index,
    functions: Sequence[Target],
    fragments: Sequence[str | None],
    heard: Mapping[str, str],
    kept: Kept,
    goals: Sequence[Goal],
) -> Setting:
    asked = questions(functions, fragments, heard, kept)
    parts: dict[str, list[Case]] = {FIT: [], VALIDATION: [], TEST: []}
    for each in asked:
        parts[each.target.part].append(Case(index.search(each.query), each.right))
    tested = [each for each in asked if each.target.part == TEST]
    clean = tuple(
        tuple(modality for modality in ("text", "code") if modality in each.query.embeddings) for each in tested
    )
    rivals = rivals_of(
        [(each.query, each.right, each.target.part) for each in asked], [entry.code or "" for entry in index], parts
    )
    return Setting(name, parts[FIT], parts[VALIDATION], parts[TEST], clean=clean, rivals=rivals, goals=goals)


TASK = Task(
    "function-finder",
    "functions by hash of their names: half test, a quarter fits, a quarter validates; voices differ between the parts",
    settings,
)
