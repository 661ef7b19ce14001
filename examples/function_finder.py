"""The function finder: a function of Python's standard library, found by what it does, by a line of it, and by voice.

    noodle up
    python examples/function_finder.py
    python examples/function_finder.py me.wav       # your voice instead, saying what the function does

Python runs all cells (`# %%`), an editor that knows notebooks one by one. Needs the pack: `noodle models fetch`. The
voice is espeak-ng's, which is brought from Debian's packages where it is not installed.
"""

# %% What is asked
# One function, and what somebody may remember of it: the first line of its docstring, and a line of its code with other
# names than the library's, as it stands in many functions. They were chosen because each of them alone leaves it open;
# that is an illustration and says nothing about accuracy. The last table does.
from __future__ import annotations

import io
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import soundfile

import noodle_ray
from noodle_ray import Cluster, FusionResult, MultimodalInput
from noodle_ray.entry.bench.fusion.function_queries import Fragments, Target
from noodle_ray.entry.cli.output import console, print_table, with_clear_errors
from noodle_ray.entry.training.datasets import Function, python_functions
from noodle_ray.entry.training.voices import VOICES_TEST, speak
from noodle_ray.errors import DeadlineExceeded, NotFound, Overloaded, Unavailable
from noodle_ray.fusion.decoding import SAMPLE_RATE_HZ

WANTED = "heapq.heapify"
SENTENCE = "Transform list into a heap, in-place, in O(len(x)) time."
LINE = "count = len(items)"
VOICE = VOICES_TEST[0]

FUNCTIONS, LONGEST, BATCH, SEED = 200, 700, 50, 1
TRIES, PAUSE_S = 20, 0.3

Clues = Mapping[str, str | bytes]


def chapter(title: str) -> None:
    console.print()
    console.rule(f"[bold]{title}", align="left")


# %% The functions
# Short public functions of the standard library; of those that share a name in a module, the first.
def functions() -> dict[str, Function]:
    """FUNCTIONS of them by module and name, the one that is to be found among them."""
    known: dict[str, Function] = {}
    for function in python_functions():
        if not function.name.startswith("_") and len(function.code) < LONGEST:
            known.setdefault(f"{function.module}.{function.name}", function)
    drawn = Random(SEED).sample(sorted(known), FUNCTIONS)  # noqa: S311 - a repeatable draw is what is wanted
    return {name: known[name] for name in list(dict.fromkeys([WANTED, *drawn]))[:FUNCTIONS]}


# %% The index
# An entry is code, and whatever is to come back with an answer (`meta`). The docstrings stay outside: a sentence has to
# find a function by its code.
def fill(cluster: Cluster, index: str, known: Mapping[str, Function]) -> None:
    """Creates the index and adds the functions, a batch at a time."""
    chapter("An index of functions")
    cluster.fusion.indexes.create(index, kind="code")
    entries = [
        {"name": name, "code": function.code, "meta": {"module": function.module, "name": function.name}}
        for name, function in known.items()
    ]
    started = time.monotonic()
    for first in range(0, len(entries), BATCH):
        cluster.fusion.indexes.add(index, entries[first : first + BATCH])
    taken = time.monotonic() - started
    console.print(f"{len(entries)} functions added in {taken:.1f} s; wanted is {WANTED}", highlight=False)


# %% A voice
# A recording of one's own, or an artificial voice. Where there is neither, all the rest goes on without.
def recording(own: Path | None) -> bytes | None:
    """What is said about the function, as a sound; None where there is no voice. Raises NotFound for a missing file."""
    if own is not None:
        if not own.is_file():
            raise NotFound("recording", str(own))
        return own.read_bytes()
    try:
        samples = speak(SENTENCE, VOICE)
    except Unavailable as error:
        console.print(f"going on without voice ({error}); a WAV file of yours gives one", style="yellow", markup=False)
        return None
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE_HZ, format="WAV")
    return file.getvalue()


# %% Asking
# A question is any of text, code and audio, and has a deadline. What was late is not in the answer, but is remembered
# as soon as it is there: the same question finds it a little later.
def ask(cluster: Cluster, index: str, clues: Clues) -> tuple[FusionResult, int]:
    """The answer, and how often it was asked for until all clues were in it."""
    question = MultimodalInput.parse(clues)
    for number in range(1, TRIES):
        try:
            result = cluster.fusion.indexes.find(index, question, top=3)
            if not result.late:
                return result, number
        except (DeadlineExceeded, Overloaded):
            pass
        time.sleep(PAUSE_S)
    return cluster.fusion.indexes.find(index, question, top=3), TRIES


def show(title: str, result: FusionResult, asked: int) -> None:
    """The first three, whether it knows, and what each modality was read as and added."""
    chapter(title)
    hits = [(hit.probability, hit.meta or {}) for hit in result.candidates]
    print_table("", ["", "function", "module"], [(f"{p:.1%}", meta["name"], meta["module"]) for p, meta in hits])
    knows, style = ("it knows", "green") if result.confident else ("it does not know", "yellow")
    times = "" if asked == 1 else f", asked {asked} times"
    console.print(
        f"{knows}: confidence {result.confidence:.1%} ({result.stage_ms['total']:.0f} ms{times})",
        style=style,
        highlight=False,
    )
    print_table("", ["by", "read as", "adds", "ms"], [sense(result, name) for name in result.modalities_used])
    for name in (*result.late, *result.failed):
        console.print(f"{name} is missing: {result.failed.get(name, 'it came too late')}", style="yellow", markup=False)


def sense(result: FusionResult, name: str) -> tuple[str, ...]:
    """How a modality was read, and by how many points the first one is more probable with it than without."""
    taken = "remembered" if name in result.cached else f"{result.stage_ms.get(name, 0.0):.0f}"
    return name, result.readings.get(name, ""), f"{100 * result.contributions.get(name, 0.0):+.1f}", taken


# %% Finding the function
# By each clue alone, and by several together: what each of them leaves open, they may settle.
def find(cluster: Cluster, index: str, voice: bytes | None) -> None:
    text: Clues = {"text": SENTENCE}
    code: Clues = {"code": LINE}
    questions = {"By a sentence": text, "By a line of code, renamed": code}
    if voice is None:
        questions["By all together"] = {**text, **code}
    else:
        questions["By voice"] = {"audio": voice}
        questions["By voice and the line"] = {"audio": voice, **code}
        questions["By all together"] = {"audio": voice, **text, **code}
    for title, clues in questions.items():
        show(title, *ask(cluster, index, clues))


# %% Questions with known answers
# A sentence and a renamed line of each function but the wanted one. Every third of them tests, the others fit the
# index's rule.
@dataclass(frozen=True, slots=True)
class Known:
    """A question and the name of the entry that answers it."""

    answer: str
    clues: Clues


def known_questions(known: Mapping[str, Function]) -> tuple[list[Known], list[Known]]:
    """To fit, and to test."""
    targets = [Target(name, function.summary, function.code, function.code) for name, function in known.items()]
    lines = Fragments(1, renames=True).of(targets)
    questions = [
        Known(target.key, {"text": target.summary, "code": line})
        for target, line in zip(targets, lines, strict=True)
        if line and target.key != WANTED
    ]
    testing = questions[::3]
    return [one for one in questions if one not in testing], testing


# %% What the confidence is worth
# An answer says how sure it is. Over many questions that should be how often it is right.
WAYS = (("text",), ("code",), ("text", "code"))


@dataclass(frozen=True, slots=True)
class Tally:
    """Of questions asked in one way: their number, which share was right and which the confidence was, and how many
    answers were said to be known, and rightly so."""

    questions: int
    right: float
    confidence: float
    known: int
    known_right: int


def examine(cluster: Cluster, index: str, questions: Sequence[Known]) -> dict[str, Tally]:
    """All the questions, asked in all ways."""
    return {"+".join(way): tally([answered(cluster, index, one, way) for one in questions]) for way in WAYS}


def answered(cluster: Cluster, index: str, one: Known, way: Sequence[str]) -> tuple[bool, float, bool]:
    """Whether the answer was right, how sure it was, and whether it was said to be known."""
    result, _ = ask(cluster, index, {name: one.clues[name] for name in way})
    return result.candidates[0].candidate == one.answer, result.confidence, result.confident


def tally(answers: Sequence[tuple[bool, float, bool]]) -> Tally:
    count, known = len(answers), [right for right, _, confident in answers if confident]
    right, confidence = sum(right for right, _, _ in answers), sum(confidence for _, confidence, _ in answers)
    return Tally(count, right / count, confidence / count, len(known), sum(known))


def print_tallies(before: Mapping[str, Tally], after: Mapping[str, Tally]) -> None:
    columns = ["asked by", "rule", "questions", "right", "confidence", "said to be known", "of them right"]
    print_table("", columns, rows_of(before, after))
    old, new = off(before), off(after)
    console.print(
        f"right and confidence lie {old:.1f} points apart, and {new:.1f} with the fitted rule", highlight=False
    )


def rows_of(before: Mapping[str, Tally], after: Mapping[str, Tally]) -> Iterator[tuple[object, ...]]:
    for way in before:
        for rule, one in (("shipped", before[way]), ("fitted", after[way])):
            shares = f"{one.right:.1%}", f"{one.confidence:.1%}"
            yield way, rule, one.questions, *shares, one.known, one.known_right


def off(tallies: Mapping[str, Tally]) -> float:
    """Points between how often it was right and how sure it was, in the mean of the ways."""
    return 100 * sum(abs(one.right - one.confidence) for one in tallies.values()) / len(tallies)


# %% Fitting the rule
# The rule that an index begins with comes from a larger set of functions. Questions of one's own weigh the evidence and
# calibrate the confidence for this index, unless by cross-validation the first rule does as well: then it is kept. What
# they do not show, such as a voice, is weighed as before. The table tells whether it was worth it, on questions that
# the rule has not seen.
def fit(cluster: Cluster, index: str, known: Mapping[str, Function]) -> None:
    chapter("Fitting the rule by questions with known answers")
    fitting, testing = known_questions(known)
    console.print(f"asking {len(testing)} questions by {', '.join(map('+'.join, WAYS))}", highlight=False)
    before = examine(cluster, index, testing)
    started = time.monotonic()
    cluster.fusion.indexes.fit(index, [{**one.clues, "answer": one.answer} for one in fitting])
    taken = time.monotonic() - started
    console.print(f"fitted by {len(fitting)} others in {taken:.1f} s; asking the first ones again", highlight=False)
    print_tallies(before, examine(cluster, index, testing))
    show("By the sentence again, with the fitted rule", *ask(cluster, index, {"text": SENTENCE}))


# %% All of it, on the running cluster
# Nobody else's index has this one's name, and it is dropped in the end, whatever happened before.
def main() -> None:
    own = next((Path(given) for given in sys.argv[1:2] if not given.startswith("-")), None)  # notebooks have options
    index, known, voice = f"function-finder-{secrets.token_hex(4)}", functions(), recording(own)
    with noodle_ray.connect() as cluster:
        try:
            fill(cluster, index, known)
            find(cluster, index, voice)
            fit(cluster, index, known)
        finally:
            cluster.fusion.indexes.drop(index)
            console.print(f"\nthe index {index} is dropped", highlight=False)


if __name__ == "__main__" and (status := with_clear_errors(main)):
    sys.exit(status)
