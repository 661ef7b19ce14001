"""Trains a head on rows of one's own: which kind of work a function does, told from its docstring, its code or both.

    python examples/train_a_head.py

The rows are functions of Python's standard library, labelled by the modules they come from; with rows of your own,
`noodle fusion train rows.jsonl --name topics` does the same. Needs the pack: `noodle models fetch`.
"""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path

from noodle_ray.entry.training.datasets import python_functions
from noodle_ray.entry.training.teaching import teach
from noodle_ray.fusion.head import Head
from noodle_ray.fusion.head_card import card_of
from noodle_ray.fusion_models.encoders import load_encoder
from noodle_ray.fusion_models.packs import load_pack
from noodle_ray.settings import read_settings

TOPICS = {
    "files": ("shutil", "tarfile", "zipfile", "tempfile", "posixpath", "glob", "fileinput"),
    "mail and network": ("smtplib", "imaplib", "ftplib", "mailbox", "netrc", "ipaddress"),
    "numbers": ("statistics", "fractions", "random", "numbers", "colorsys", "calendar"),
    "programs": ("ast", "dis", "inspect", "trace", "traceback", "tokenize", "pkgutil", "types", "typing"),
}
ROWS_A_TOPIC, LONGEST = 40, 500
QUESTION = "def f(path, target):\n    for name in os.listdir(path):\n        copy(os.path.join(path, name), target)"


def write_rows(path: Path) -> int:
    """One JSON object a line: a label, and what shows it."""
    topic_of = {module: topic for topic, modules in TOPICS.items() for module in modules}
    rows: dict[str, list[dict[str, str]]] = {topic: [] for topic in TOPICS}
    for function in python_functions():
        if function.module in topic_of and len(function.code) < LONGEST:
            topic = topic_of[function.module]
            rows[topic].append({"label": topic, "text": function.summary, "code": function.code})
    draw = random.Random(1)  # noqa: S311 - a repeatable draw is what is wanted
    drawn = [row for topic in TOPICS for row in draw.sample(rows[topic], min(ROWS_A_TOPIC, len(rows[topic])))]
    path.write_text("".join(json.dumps(row) + "\n" for row in drawn))
    return len(drawn)


def ask(head: Head, code: str) -> str:
    """The head's answer to a piece of code that it was never shown."""
    settings = read_settings()
    encoder = load_encoder(load_pack(settings.pack, settings.cache_dir), "code")
    probabilities = head.rule.posterior(head.scores({"code": encoder.encode(code)}))
    best = int(probabilities.argmax())
    return f"{head.labels[best]} ({probabilities[best]:.0%})"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "functions.jsonl"
        print(f"{write_rows(rows)} rows")
        head = teach(rows, "topics", read_settings(), progress=print)
    print(card_of(head.description))
    print(f"{QUESTION}\n\nThis is about: {ask(head, QUESTION)}")


if __name__ == "__main__":
    main()
