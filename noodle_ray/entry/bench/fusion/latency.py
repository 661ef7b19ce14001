"""How quickly fusion answers over HTTP, alone and under load, with encoders that fail, beside rivals and a floor.

Ours first: what it bears (a closed loop with 1 to 32 workers) is its capacity, and shares of that are the arrivals a
second that every system is then asked with (an open loop). The systems run one after the other.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from noodle_ray.entry.bench.fusion import systems
from noodle_ray.entry.bench.fusion.faults import Faults
from noodle_ray.entry.bench.fusion.latency_phases import COLD, LONE, Measured, Phase, capacity
from noodle_ray.entry.bench.fusion.load_generator import Asked, Load
from noodle_ray.entry.bench.fusion.rivals import RIVALS
from noodle_ray.entry.bench.fusion.systems import Generator, System
from noodle_ray.errors import NoodleError, Unavailable
from noodle_ray.fusion.modality import MODALITIES
from noodle_ray.settings import Settings

Progress = Callable[[str], None]

THREE = ("text", "vision", "code")
SHARES = (0.3, 0.6, 0.9)
GOAL_SHARE = 0.6
ALIKE = 8
"""How many requests are repeated where the cache is warm."""
STALL_S = 1.0
FAULTY = "vision"
"""The encoder that is stalled, killed and swapped."""
IN_PROCESS = "in one process"
NUMBERS_A_PHASE = 1_000_000
ROUNDS = 4
NO_CAPACITY = "noodle-ray gave no answer that rests on all four modalities: there is no capacity to take a share of"


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. Seconds: of each phase. main_s: at 60 % of capacity; workers: of the closed loops.

    settle_s: a system that was just started is busy with itself for some time.
    """

    lone_s: float = 6.0
    step_s: float = 4.0
    load_s: float = 15.0
    main_s: float = 60.0
    fault_s: float = 12.0
    settle_s: float = 8.0
    workers: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    rivals: tuple[str, ...] = tuple(RIVALS)
    rivals_workers: tuple[int, ...] = (1, 4, 32)
    seed: int = 1


QUICK = Plan(
    lone_s=1.0, step_s=1.0, load_s=2.0, main_s=3.0, fault_s=4.0, settle_s=2.0, workers=(1, 4), rivals_workers=(1,)
)
"""For a look at whether everything works: no figure of it is worth anything."""


@dataclass(slots=True)
class Player:
    """Plays phases on one system, each with requests that no other phase of it has; every system gets the same."""

    system: System
    generator: Generator
    plan: Plan
    progress: Progress
    measured: list[Measured] = field(default_factory=list)

    def play(self, phase: Phase, act: Callable[[], None] | None = None) -> Measured:
        """Plays it. With `act`, a fault that is brought about a quarter into it, CPU is not counted."""
        self.progress(_told(phase))
        phase = replace(phase, load=numbered(phase, self.plan.seed))
        if act is None:
            asked, cpu_ms = self.counted(phase.load)
            one = Measured(phase, asked, cpu_ms)
        else:
            one = self._with_fault(phase, act)
        self.measured.append(one)
        return one

    def counted(self, load: Load) -> tuple[list[Asked], float]:
        """What became of its requests, and the CPU time of the system in ms."""
        before: dict[int, float] = {}
        asked = self.generator.run(load, lambda: before.update(self.system.cpu_seconds()))
        after = self.system.cpu_seconds()
        return asked, 1000 * sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())

    def _with_fault(self, phase: Phase, act: Callable[[], None]) -> Measured:
        problem: list[NoodleError] = []

        def bring_about() -> None:
            time.sleep(phase.load.seconds / 4)
            try:
                act()
            except NoodleError as error:
                problem.append(error)

        thread = threading.Thread(target=bring_about)
        asked = self.generator.run(phase.load, thread.start)
        thread.join()
        return Measured(phase, left_out=problem[0].message) if problem else Measured(phase, asked)

    def closed(self, modalities: tuple[str, ...], seconds: float, workers: int, different: int = 0) -> Measured:
        load = Load(modalities=modalities, seconds=seconds, workers=workers, different=different)
        what = LONE if workers == 1 else f"{workers} at once"
        return self.play(Phase(self.system.name, what, load))

    def open(
        self, share: float, rate: float, seconds: float, fault: str = "", act: Callable[[], None] | None = None
    ) -> None:
        """Arrivals at this share of a capacity, if there is one."""
        load = Load(modalities=MODALITIES, seconds=seconds, rate=rate * share or None)
        phase = Phase(self.system.name, f"{100 * share:g} % of capacity", load, fault, share)
        if rate:
            self.play(phase, act)
        else:
            self.measured.append(Measured(phase, left_out=NO_CAPACITY))


def is_lone_and_full(measured: Measured) -> bool:
    phase = measured.phase
    return phase.what == LONE and phase.cache == COLD and phase.load.modalities == MODALITIES


def numbered(phase: Phase, seed: int) -> Load:
    """The load with the numbers of its requests: the phase's own, but for a warm cache always the same ones."""
    key = zlib.crc32(f"{phase.load.modalities} {phase.what} {phase.fault} {seed}".encode())
    first = 0 if phase.load.different else key * NUMBERS_A_PHASE
    return phase.load.model_copy(update={"first": first, "seed": key})


def _told(phase: Phase) -> str:
    many = "+".join(phase.load.modalities)
    return f"{phase.system}: {many}, {phase.what}, cache {phase.cache}{', ' + phase.fault if phase.fault else ''}"


def measure(plan: Plan, settings: Settings, progress: Progress) -> list[Measured]:
    """Every phase of every system. A rival that cannot be started here is left out, with the reason.

    Whoever interrupts it gets what was measured until then.
    """
    measured: list[Measured] = []
    try:
        rate = _measure_ours(plan, settings, progress, measured)
        for name in plan.rivals:
            _rival(name, rate, plan, settings, progress, measured)
    except KeyboardInterrupt:
        progress("interrupted: what follows was measured before that")
    return measured


def _measure_ours(plan: Plan, settings: Settings, progress: Progress, measured: list[Measured]) -> float:
    """Adds our phases, then the floor's. Gives the capacity, in answers a second."""
    floor: list[Measured] = []
    try:
        with _ours(plan, settings.cache_dir, progress, measured) as (player, faults):
            _everything_lone(player)
            _beside_the_floor(player, settings, floor)
            steps = [player.closed(MODALITIES, plan.step_s, workers) for workers in plan.workers if workers > 1]
            steps += [one for one in measured if is_lone_and_full(one)]
            for workers in plan.workers:
                if workers > 1:  # one has been measured already
                    player.closed(("text",), plan.step_s, workers)
            rate = capacity(steps)
            _shares(player, rate)
            _play_faults(player, faults, rate)
    finally:
        measured += floor
    return rate


@contextmanager
def _ours(plan: Plan, cache_dir: Path, progress: Progress, measured: list[Measured]) -> Iterator[tuple[Player, Faults]]:
    from noodle_ray.entry.cluster.ray_connection import connection  # Ray reads its settings when it is imported

    with (
        systems.noodle_ray(progress) as (system, cluster),
        systems.generator(system, cache_dir) as generator,
        connection(cluster.file.address),
    ):
        player = Player(system, generator, plan, progress, measured)
        _settle(player)
        yield player, Faults(cluster)


def _settle(player: Player) -> None:
    """Lets it come to rest, and asks some questions that do not count."""
    time.sleep(player.plan.settle_s)
    player.generator.run(Load(modalities=MODALITIES, seconds=player.plan.settle_s / 4))


def _everything_lone(player: Player) -> None:
    plan = player.plan
    for modality in MODALITIES:
        player.closed((modality,), plan.lone_s / 2, 1)
    player.closed(MODALITIES, plan.lone_s / 2, 1, different=ALIKE)  # fills the cache, where there is one
    player.measured.pop()
    player.closed(MODALITIES, plan.lone_s, 1, different=ALIKE)


def _shares(player: Player, rate: float) -> None:
    for share in SHARES:
        player.open(share, rate, player.plan.main_s if share == GOAL_SHARE else player.plan.load_s)


def _play_faults(player: Player, faults: Faults, rate: float) -> None:
    acts: dict[str, Callable[[], None]] = {
        f"{FAULTY} stalled for {STALL_S:g} s": lambda: faults.stall(FAULTY, STALL_S),
        f"{FAULTY} killed": lambda: faults.kill(FAULTY),
        f"{FAULTY} swapped": lambda: faults.swap(FAULTY),
    }
    for fault, act in acts.items():
        player.open(GOAL_SHARE, rate, player.plan.fault_s, fault, act)


def _beside_the_floor(player: Player, settings: Settings, measured: list[Measured]) -> None:
    """Lone requests, ours and the floor's in turn: whatever else slows the machine down slows both."""
    plan = player.plan
    with systems.in_process(settings.cache_dir, settings.pack) as generator:
        floor = Player(System(IN_PROCESS, ""), generator, plan, player.progress, measured)
        floor.generator.run(Load(modalities=MODALITIES, seconds=plan.settle_s / 4))
        for modalities in (THREE, MODALITIES):
            in_turn((player, floor), modalities, plan.lone_s, ROUNDS)


def in_turn(players: Sequence[Player], modalities: tuple[str, ...], seconds: float, rounds: int) -> None:
    """Lone requests of so many seconds for each player, in rounds; one phase for each in the end."""
    phases = [Phase(player.system.name, LONE, Load(modalities=modalities, seconds=seconds)) for player in players]
    for player, phase in zip(players, phases, strict=True):
        player.progress(_told(phase))
    asked: list[list[Asked]] = [[] for _ in players]
    cpu_ms = [0.0 for _ in players]
    for number in range(rounds):
        load = numbered(replace(phases[0], what=f"round {number}"), players[0].plan.seed)
        for place, player in enumerate(players):
            more, used_ms = player.counted(load.model_copy(update={"seconds": seconds / rounds}))
            asked[place] += more
            cpu_ms[place] += used_ms
    for player, phase, all_of_it, used_ms in zip(players, phases, asked, cpu_ms, strict=True):
        player.measured.append(Measured(phase, all_of_it, used_ms))


def _rival(
    name: str, rate: float, plan: Plan, settings: Settings, progress: Progress, measured: list[Measured]
) -> None:
    progress(f"starting {name}")
    try:
        with (
            systems.rival(name, settings.cache_dir, settings.pack) as system,
            systems.generator(system, settings.cache_dir) as generator,
        ):
            player = Player(system, generator, plan, progress, measured)
            _settle(player)
            _play_rival(player, rate)
    except Unavailable as error:
        progress(f"{name} is left out: {error.message}")
        nothing = Phase(name, LONE, Load(modalities=MODALITIES, seconds=1))
        measured.append(Measured(nothing, left_out=error.message))


def _play_rival(player: Player, rate: float) -> None:
    plan = player.plan
    player.closed(THREE, plan.lone_s, 1)
    for workers in plan.rivals_workers:
        player.closed(MODALITIES, plan.lone_s if workers == 1 else plan.step_s, workers)
    for share in SHARES:
        player.open(share, rate, plan.load_s)
