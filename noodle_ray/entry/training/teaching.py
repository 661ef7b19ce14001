"""From a file of rows to a head on disk: checked, divided, encoded, trained, written down."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from noodle_ray.fusion.head import Head, Named
from noodle_ray.fusion.head_card import card_of
from noodle_ray.fusion.training_rows import PARTS, divide, read_rows
from noodle_ray.fusion_models.packs import load_pack
from noodle_ray.fusion_models.reading_rows import RowReader
from noodle_ray.fusion_models.train import Shown, train_head
from noodle_ray.settings import Settings

Progress = Callable[[str], None]
Counter = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
"""Called with a title and a total; gives what is called after each step."""
SEED = 7


def heads_directory(settings: Settings) -> Path:
    return settings.state_dir / "heads"


def teach(
    rows: Path,
    name: str,
    settings: Settings,
    seed: int = SEED,
    progress: Progress = lambda line: None,
    counter: Counter = lambda title, total: nullcontext(lambda: None),
) -> Head:
    """Trains a head on the rows and saves it, with its card, in the state directory.

    Raises InvalidInput for a name that is none, or that lists what is wrong with the rows.
    """
    Named(name=name)
    progress(f"checking {rows}")
    examples = read_rows(rows)
    parts = divide(examples, seed)
    reader = RowReader(load_pack(settings.pack, settings.cache_dir), settings.cache_dir)
    with counter("encoding", len(examples)) as tick:
        shown: dict[str, list[Shown]] = {part: reader.read_all(parts[part], tick) for part in PARTS}
    facts = {
        "data": f"{len(examples)} rows of {rows.name}",
        "split": "as the rows say" if examples[0].split else f"60 / 20 / 20 % of each class, drawn by seed {seed}",
        "command": shlex.join(["noodle", "fusion", "train", rows.name, "--name", name, "--split-seed", str(seed)]),
    }
    head = train_head(name, shown, seed, progress, facts)
    save_with_card(head, heads_directory(settings))
    return head


def save_with_card(head: Head, folder: Path) -> None:
    """Writes `<name>.safetensors`, `<name>.json` and `<name>.md`."""
    head.save(folder)
    (folder / f"{head.description.name}.md").write_text(card_of(head.description), encoding="utf-8")
