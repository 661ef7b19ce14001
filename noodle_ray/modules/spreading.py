"""Which host of a module is to go to another node, so that no node has two while another has none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

APART = 2
"""A node with so many hosts more than another gives one away: with one more there is nothing to win."""


def crowded(hosts: Mapping[int, str], open_nodes: Collection[str]) -> int | None:
    """The host to move, by its epoch: the youngest on the fullest node, if an open node has two fewer.

    hosts: each host's node, by its epoch. open_nodes: where new work may be placed.
    """
    counts = Counter(hosts.values())
    if not hosts or not open_nodes:
        return None
    fullest = max(sorted(counts), key=lambda node: counts[node])
    if counts[fullest] - min(counts[node] for node in open_nodes) < APART:
        return None
    return max(epoch for epoch, node in hosts.items() if node == fullest)
