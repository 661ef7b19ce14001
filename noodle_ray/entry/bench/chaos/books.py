"""The books of a cluster, read on its head: what the ledger, Ray and the store say.

As a program: `others` writes what others use, to be asked before anything goes wrong; `compare OTHERS` writes what
differs. Both write JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from noodle_ray.actors import ray_state
from noodle_ray.entry.bench.chaos.ledger_check import Books, RaySide, differences, leaked_units, used_by_others
from noodle_ray.entry.client import Cluster, connect
from noodle_ray.settings import read_settings
from noodle_ray.store.database import Database


def _ray_side() -> RaySide:
    nodes = {node_id: node.resources for node_id, node in ray_state.live_nodes().items()}
    groups = {name: group.is_ready for name, group in ray_state.groups().items()}
    return RaySide(nodes, ray_state.available(), groups)


def _others(cluster: Cluster) -> dict[str, int]:
    return used_by_others(cluster.allocations(), _ray_side())


def _compare(cluster: Cluster, others: dict[str, int]) -> dict[str, Any]:
    database = Database.open(read_settings().database)
    try:
        rows = database.load("allocations")
    finally:
        database.close()
    books = Books(cluster.allocations(), cluster.resources(), _ray_side(), rows, others)
    return {"leaked_units": leaked_units(books), "differences": [str(one) for one in differences(books)]}


def main() -> None:
    with connect() as cluster:
        asked, *more = sys.argv[1:]
        found: Any = _others(cluster) if asked == "others" else _compare(cluster, json.loads(more[0]))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
