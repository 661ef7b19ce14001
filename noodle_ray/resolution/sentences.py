"""Sentences: a derivation told to a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from noodle_ray.resolution.conflict import Fact, Needs
from noodle_ray.resolution.derivation import Clash, absent, everything
from noodle_ray.resolution.universe import ROOT, Need, Universe, places

SHOWN_RUNS = 3
"""Stretches of versions that are named; more are counted."""


def tell(universe: Universe, end: Clash, there_is: Callable[[str], str]) -> list[str]:
    """The derivation of a clash in sentences, the last one being that there is no answer.

    The order is that of PubGrub's reports: each step right after what it follows from, with numbers in brackets for
    steps that are needed again further down. `there_is` says what there is of a package of which no version will do.
    """
    return _Story(Words(universe, there_is), end).sentences


class _Story:
    def __init__(self, words: Words, end: Clash) -> None:
        self._words = words
        self._used = Counter(id(cause) for clash in _derived(end) for cause in _causes(clash))
        self._numbers: dict[int, int] = {}
        self.sentences: list[str] = []
        self._tell(end)
        self.sentences = [f"{sentence[0].upper()}{sentence[1:]}." for sentence in self.sentences]

    def _tell(self, clash: Clash) -> None:
        if isinstance(clash.causes, tuple):
            self._tell_step(clash, *clash.causes)
        else:  # one fact alone is the whole reason
            self._say(f"{self._words.fact(clash.causes)}: {self._words.clash(clash)}", clash)

    def _tell_step(self, clash: Clash, one: Clash, other: Clash) -> None:
        untold = [cause for cause in (one, other) if not self._is_known(cause)]
        if not untold:
            self._say(f"because {self._reasons(one, other)}, {self._words.clash(clash)}", clash)
            return
        # The longer way last: what is told right before need not be repeated.
        last = max(untold, key=lambda cause: len(list(_derived(cause))))
        known = other if last is one else one
        if len(untold) == 2:
            self._tell(known)
            self._number(known)
        earlier, skipped = self._skip(last) if _is_fact(known) else (last, None)
        self._tell(earlier)
        reasons = self._reasons(known) if skipped is None else self._reasons(skipped, known)
        self._say(f"and because {reasons}, {self._words.clash(clash)}", clash)

    def _skip(self, clash: Clash) -> tuple[Clash, Clash | None]:
        """A step that adds one fact to another step need not be told, where the next one adds a fact too."""
        if isinstance(clash.causes, tuple) and self._used[id(clash)] == 1:
            facts = [cause for cause in clash.causes if _is_fact(cause)]
            steps = [cause for cause in clash.causes if not self._is_known(cause)]
            if len(facts) == 1 and len(steps) == 1:
                return steps[0], facts[0]
        return clash, None

    def _is_known(self, clash: Clash) -> bool:
        return _is_fact(clash) or id(clash) in self._numbers

    def _reasons(self, *clashes: Clash) -> str:
        facts = self._words.facts([clash.causes for clash in clashes if not isinstance(clash.causes, tuple)])
        told = [f"{self._words.clash(clash)} ({self._number(clash)})" for clash in clashes if not _is_fact(clash)]
        return " and ".join([*facts, *told])

    def _number(self, clash: Clash) -> int:
        """The number of a sentence; it is written at the sentence's end when it is first asked for."""
        if id(clash) not in self._numbers:
            self._numbers[id(clash)] = len(self._numbers) + 1
            self.sentences[-1] += f" ({self._numbers[id(clash)]})"
        return self._numbers[id(clash)]

    def _say(self, sentence: str, clash: Clash) -> None:
        self.sentences.append(sentence)
        if self._used[id(clash)] > 1:
            self._number(clash)


def _is_fact(clash: Clash) -> bool:
    return not isinstance(clash.causes, tuple)


def _derived(clash: Clash) -> Iterator[Clash]:
    """It and all that it follows from, without the facts; each once."""
    seen: set[int] = set()
    todo = [clash]
    while todo:
        one = todo.pop()
        if id(one) not in seen and isinstance(one.causes, tuple):
            seen.add(id(one))
            todo += one.causes
            yield one


def _causes(clash: Clash) -> Sequence[Clash]:
    return clash.causes if isinstance(clash.causes, tuple) else ()


class Words:
    """How versions, facts and clashes are put."""

    def __init__(self, universe: Universe, there_is: Callable[[str], str]) -> None:
        self._universe, self._there_is = universe, there_is

    def facts(self, facts: Sequence[Fact]) -> list[str]:
        """Each fact in words; what the same versions need is said together."""
        needs: dict[tuple[str, int], list[str]] = {}
        circles = []
        for fact in facts:
            if isinstance(fact, Needs):
                needs.setdefault((fact.package, fact.versions), []).append(self._needed(fact.need))
            else:
                around = ", ".join(f"{package} needs {needed}" for package, needed in fact.circle)
                circles.append(f"a circle is not allowed ({around})")
        said = [f"{self._some_need(*who)} {' and '.join(dict.fromkeys(what))}" for who, what in needs.items()]
        return [*said, *circles]

    def fact(self, fact: Fact) -> str:
        return self.facts([fact])[0]

    def _needed(self, need: Need) -> str:
        wanted = f"{need.package} {need.text}" if need.text.strip(" *") else need.package
        return wanted if need.allowed else f"{wanted} ({self._there_is(need.package)})"

    def clash(self, clash: Clash) -> str:
        """What follows: who needs what, or which versions go with which."""
        have = {name: term for name, term in clash.terms.items() if not term & absent(self._universe, name)}
        lack = {
            name: everything(self._universe, name) & ~term for name, term in clash.terms.items() if name not in have
        }
        who = {name: term for name, term in have.items() if name != ROOT or len(have) == 1}
        if lack:
            needed = " or ".join(self._some(name, versions, "or") for name, versions in lack.items())
            if len(who) == 1:
                return f"{self._some_need(*next(iter(who.items())))} {needed}"
            return f"{' with '.join(self._some(*one) for one in who.items())} needs {needed}"
        if set(have) <= {ROOT}:
            return "the request cannot be met"
        if ROOT in have:
            return f"the request rules out {' with '.join(self._some(*one) for one in who.items())}"
        if len(who) > 1:
            return f"{' and '.join(self._some(*one) for one in who.items())} cannot be used together"
        [(package, versions)] = who.items()
        if versions == self._all(package) and versions.bit_count() > 1:
            return f"no version of {package} can be used"
        return f"{self._some(package, versions)} cannot be used"

    def _some_need(self, package: str, versions: int) -> str:
        some = self._some(package, versions)
        is_one = package == ROOT or versions.bit_count() == 1 or versions == self._all(package)
        return f"{some} {'needs' if is_one else 'need'}"

    def _all(self, package: str) -> int:
        return absent(self._universe, package) - 1

    def _some(self, package: str, versions: int, conjunction: str = "and") -> str:
        """These versions of a package, in words."""
        if package == ROOT:
            return "the request"
        names = self._universe.packages[package].versions
        if versions == self._all(package) and len(names) > 1:
            return f"every version of {package}" if conjunction == "and" else f"any version of {package}"
        runs = list(_runs(versions))
        shown = [self._run(names, newest, oldest) for newest, oldest in reversed(runs)][:SHOWN_RUNS]
        more = [f"{len(runs) - SHOWN_RUNS} more stretches"] if len(runs) > SHOWN_RUNS else []
        return f"{package} {_enumerate([*shown, *more], conjunction)}"

    def _run(self, names: Sequence[str], newest: int, oldest: int) -> str:
        if newest == oldest:
            return names[newest]
        if newest == 0:
            return f"{names[oldest]} or newer"
        return f"{names[newest]} or older" if oldest == len(names) - 1 else f"{names[oldest]} to {names[newest]}"


def _runs(versions: int) -> Iterator[tuple[int, int]]:
    """Stretches of neighbouring versions: the newest and the oldest of each."""
    start = last = None
    for place in places(versions):
        if start is None or last is None:
            start = place
        elif place != last + 1:
            yield start, last
            start = place
        last = place
    if start is not None and last is not None:
        yield start, last


def _enumerate(parts: Sequence[str], conjunction: str) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {conjunction} {parts[-1]}"
