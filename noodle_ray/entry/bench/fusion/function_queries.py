"""The function finder's thousand functions, how they are divided, and the fragments that are asked with."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from random import Random

from noodle_ray.entry.training.datasets import python_functions
from noodle_ray.entry.training.function_pairs import masked
from noodle_ray.fusion.code_tokens import COMMENT, LINE, NAME, is_renameable, shape_terms, tokens_of

FUNCTIONS, SEED = 1000, 5
FIT, VALIDATION, TEST = "fit", "validation", "test"


@dataclass(frozen=True, slots=True)
class Target:
    """A function to be found: `key` tells it apart, `code` is without docstring and with its own name masked."""

    key: str
    summary: str
    code: str
    named_code: str

    @property
    def part(self) -> str:
        """Half of the functions are for the test, a quarter to fit, a quarter to validate: by a hash of the key."""
        return (TEST, TEST, FIT, VALIDATION)[_number(self.key) % 4]


def _number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def targets() -> tuple[Target, ...]:
    """FUNCTIONS of `python_functions`, drawn with SEED; of those that differ in their names alone, the first."""
    distinct: dict[bytes, Target] = {}
    for index, function in enumerate(python_functions()):
        code = masked(function)
        key = f"{function.module}.{function.name}#{index}"
        distinct.setdefault(shape_terms(code).tobytes(), Target(key, function.summary, code, function.code))
    chosen = Random(SEED).sample(range(len(distinct)), FUNCTIONS)  # noqa: S311 (no secret)
    everything = tuple(distinct.values())
    return tuple(everything[index] for index in sorted(chosen))


def body_lines(code: str) -> list[str]:
    """The lines behind the signature that hold code."""
    try:
        node = ast.parse(code).body[0]
    except SyntaxError:  # nothing but the docstring stood in an inner block
        first = 1
    else:
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        first = node.body[0].lineno - 1
    lines = [line for line in code.splitlines()[first:] if line.strip() and not line.strip().startswith("#")]
    return lines or code.splitlines()


def windows_of(target: Target) -> list[str]:
    """Every three lines that follow each other, two of them telling at least."""
    lines = body_lines(target.code)
    windows = [lines[start : start + 3] for start in range(len(lines) - 2)]
    return ["\n".join(window) for window in windows if sum(map(is_telling, window)) >= 2]


def common_forms(functions: Sequence[Target]) -> frozenset[str]:
    """The forms of three lines that more than one function has: nobody can tell whose they are."""
    counts = Counter(form for target in functions for form in {form_of(window) for window in windows_of(target)})
    return frozenset(form for form, count in counts.items() if count > 1)


def three_lines(target: Target, left_out: Collection[str] = ()) -> str | None:
    """Three lines, from a place drawn for the function; those whose form is in `left_out` are not taken."""
    windows = [window for window in windows_of(target) if form_of(window) not in left_out]
    return _draw(target).choice(windows) if windows else None


def one_line(target: Target) -> str | None:
    """One telling line, drawn for the function. Other functions may have it, too."""
    telling = [line for line in body_lines(target.code) if is_telling(line)]
    return _draw(target).choice(telling) if telling else None


def with_a_gap(fragment: str | None) -> str | None:
    """Three lines without the middle one."""
    lines = (fragment or "").splitlines()
    return "\n".join([lines[0], lines[2]]) if lines else None


def form_of(fragment: str) -> str:
    """The fragment with numbers for its names: equal for fragments that differ by renaming alone."""
    numbers: dict[str, str] = {}
    spelt = []
    for token in tokens_of(fragment):
        if token.kind == LINE:
            spelt.append("\n")
        elif is_renameable(token):
            spelt.append(numbers.setdefault(token.text, f"${len(numbers)}"))
        elif token.kind != COMMENT:
            spelt.append(token.text)
    return " ".join(spelt)


def is_telling(line: str) -> bool:
    """Whether a line has at least two different names and four tokens: unlike `else:` and `return result`."""
    tokens = tokens_of(line)
    names = {token.text for token in tokens if token.kind == NAME}
    return len(names) >= 2 and sum(token.kind not in (LINE, COMMENT) for token in tokens) >= 4


def _draw(target: Target) -> Random:
    return Random(_number(f"{SEED}/{target.key}"))  # noqa: S311 (no secret)


def renamed(target: Target, fragment: str, names: Collection[str], vocabulary: Sequence[str]) -> str:
    """The fragment with other names for those of `names`, the same wherever one occurs.

    The new ones are drawn from `vocabulary`, real names of other functions: they mislead whoever goes by names. What
    stands behind a dot is an attribute and stays.
    """
    old = sorted({token.text for token in tokens_of(fragment)} & set(names))
    drawn = _draw(target).sample(vocabulary, min(len(vocabulary), 2 * len(old) + 8))
    new = dict(zip(old, [name for name in drawn if name not in old], strict=False))
    return "".join(_replaced(fragment, new))


def _replaced(fragment: str, new: Mapping[str, str]) -> Iterator[str]:
    place, before = 0, ""
    for token in tokens_of(fragment):
        start = fragment.index(token.text, place)
        yield fragment[place:start]
        yield new.get(token.text, token.text) if token.kind == NAME and before != "." else token.text
        place, before = start + len(token.text), token.text
    yield fragment[place:]


def variables_of(code: str) -> list[str]:
    """What a renaming of variables may change: parameters and what is assigned, imported or defined inside."""
    try:
        tree = ast.parse(code)
    except SyntaxError:  # an inner block held nothing but the docstring
        return sorted({token.text for token in tokens_of(code) if is_renameable(token)})
    found = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    found |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    found |= {node.name for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.name}
    return sorted(found - {"self", "cls"})


@dataclass(frozen=True, slots=True)
class Fragments:
    """How fragments are made for a setting. `renames`: variables get other names; `gap`: the middle line is missing."""

    lines: int
    renames: bool = False
    gap: bool = False

    def of(self, functions: Sequence[Target]) -> list[str | None]:
        """A fragment of each function; None where it has none that would do."""
        common = common_forms(functions) if self.lines > 1 else frozenset()
        variables = [variables_of(target.code) for target in functions]
        vocabulary = sorted({name for names in variables for name in names})
        found = []
        for target, names in zip(functions, variables, strict=True):
            fragment = one_line(target) if self.lines == 1 else three_lines(target, common)
            fragment = with_a_gap(fragment) if self.gap else fragment
            found.append(renamed(target, fragment, names, vocabulary) if fragment and self.renames else fragment)
        return found
