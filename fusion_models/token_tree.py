"""Several sentences as one tree of tokens, so that what they begin with alike is read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TokenTree:
    """Rows of tokens, each behind the same prompt and followed by the same end.

    tokens:  (nodes,) the prompt first, then every distinct beginning of a row by its last token.
    places:  (nodes,) how many tokens stand before each.
    seen:    (nodes, nodes) True where a node may look at another: itself and what stands before it.
    parents, wanted, rows: (steps,) each step's node, the token that should follow it, and the row it belongs to. A
             step that several rows share is there once for each.
    """

    tokens: Integers
    places: Integers
    seen: npt.NDArray[np.bool_]
    parents: Integers
    wanted: Integers
    rows: Integers

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], prompt: Sequence[int], end: int) -> TokenTree:
        nodes = _Nodes(prompt)
        steps: list[tuple[int, int, int]] = []
        for number, row in enumerate(rows):
            node = len(prompt) - 1
            for token in row:
                steps.append((node, token, number))
                node = nodes.child(node, token)
            steps.append((node, end, number))
        parents, wanted, owners = np.array(steps, np.int64).reshape(-1, 3).T
        return cls(np.array(nodes.tokens), np.array(nodes.places), nodes.seen(), parents, wanted, owners)


class _Nodes:
    def __init__(self, prompt: Sequence[int]) -> None:
        self.tokens, self.places = list(prompt), list(range(len(prompt)))
        self._parents = [-1, *range(len(prompt) - 1)]
        self._known: dict[tuple[int, int], int] = {}

    def child(self, parent: int, token: int) -> int:
        node = self._known.get((parent, token))
        if node is None:
            node = self._known[parent, token] = len(self.tokens)
            self.tokens.append(token)
            self.places.append(self.places[parent] + 1)
            self._parents.append(parent)
        return node

    def seen(self) -> npt.NDArray[np.bool_]:
        # A node comes after its parent, whose row is therefore complete.
        result = np.eye(len(self.tokens), dtype=np.bool_)
        for node, parent in enumerate(self._parents):
            if parent >= 0:
                result[node] |= result[parent]
        return result
