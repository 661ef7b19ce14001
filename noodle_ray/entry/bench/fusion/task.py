"""What a task of the accuracy benchmark consists of: settings with cases to fit on, to validate with and to test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from noodle_ray.fusion.fitting import Case
from noodle_ray.fusion.selective import Answer

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure should reach: `metric` of the report, for one subset of modalities ("text+audio")."""

    metric: str
    modalities: str
    at_least: float


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a task, such as a level of noise. Its three parts are fixed in advance and share no case.

    cases:   `fit` is for weights and temperatures, `validation` for the choice of a method, `test` for the figures.
    labels:  the class of each test case, where classes are compared.
    clean:   for each test case, the modalities that are undisturbed: leaving one out should not raise confidence.
    rivals:  other methods' answers to the test cases, by the method's name and subset of modalities.
    """

    name: str
    fit: Sequence[Case]
    validation: Sequence[Case]
    test: Sequence[Case]
    labels: Sequence[str] = ()
    clean: Sequence[tuple[str, ...]] = ()
    rivals: Mapping[tuple[str, str], Sequence[Answer]] = field(default_factory=dict)
    goals: Sequence[Goal] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """A task: `settings` brings its data, runs the encoders over it and yields each setting as it is ready.

    split: in words, how the data is divided. The first argument is the cache directory.
    """

    name: str
    split: str
    settings: Callable[[Path, Progress], Iterator[Setting]]
