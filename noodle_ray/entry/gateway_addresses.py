"""The addresses of a cluster's gateways, and which of them are of use now. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from noodle_ray.errors import InvalidInput


class GatewayAddresses:
    """Takes addresses in turn, and passes over those that are known to be away, as long as another one is there."""

    def __init__(self, addresses: Sequence[str]) -> None:
        """Raises InvalidInput without an address."""
        if not addresses:
            raise InvalidInput.of("addresses", "must name at least one gateway")
        self._all = tuple(dict.fromkeys(address.rstrip("/") for address in addresses))
        self._turn = 0
        self._away: set[str] = set()

    @property
    def all(self) -> tuple[str, ...]:
        return self._all

    @property
    def away(self) -> frozenset[str]:
        """Those that are to be looked at until they are back."""
        return frozenset(self._away)

    def first(self) -> str:
        """The next in turn; where all are away any may be back."""
        self._turn += 1
        ordered = self._from(self._turn - 1)
        return next((one for one in ordered if one not in self._away), ordered[0])

    def second(self, first: str) -> str:
        """Another one than the first. Where those are away it is the first again, unless that is away, too."""
        if (other := self.other(first)) is not None:
            return other
        return self._from(self._all.index(first) + 1)[0] if first in self._away else first

    def other(self, first: str) -> str | None:
        """Another one than the first that is not away, if there is one."""
        return next((one for one in self._from(self._all.index(first) + 1) if one not in self._away | {first}), None)

    def _from(self, place: int) -> list[str]:
        """All, beginning with that place."""
        return [self._all[(place + step) % len(self._all)] for step in range(len(self._all))]

    def failed(self, address: str) -> None:
        self._away.add(address)

    def answered(self, address: str) -> None:
        self._away.discard(address)
