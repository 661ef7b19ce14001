"""How often may be asked a second time while the first is still under way. Pure."""

from __future__ import annotations

from noodle_ray.errors import InvalidInput

BURST, SHARE = 100.0, 0.2


class RetryBudget:
    """A share of all requests, and a burst of so many at once; after the retry budgets of Finagle and gRPC.

    Whoever asks slow servers again gives them twice the work. Without a bound they stay slow because of that, long
    after what had made them slow.

    burst: how many at once, at most. share: of the first tries, how many more a second one. Both 0: never.
    """

    def __init__(self, burst: float = BURST, share: float = SHARE) -> None:
        """Raises InvalidInput for what is below 0, or no number."""
        for name, value in {"burst": burst, "share": share}.items():
            if not value >= 0:
                raise InvalidInput.of(name, "must be 0 or above", value)
        self._burst, self._share = burst, share
        self._left = burst

    def asked(self) -> None:
        """A request was asked a first time."""
        self._left = min(self._burst, self._left + self._share)

    def take(self) -> bool:
        """Whether one may be asked a second time; it is counted."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
