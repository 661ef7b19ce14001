"""A claim: a request, with who makes it, how much it matters, and how long it may wait."""

from __future__ import annotations

from typing import Annotated
from uuid import uuid4

from pydantic import Field

from noodle_ray.base_model import Model
from noodle_ray.placement.allocation import OnLoss
from noodle_ray.placement.request import Request

Priority = Annotated[int, Field(ge=-1000, le=1000)]
WaitSeconds = Annotated[float, Field(ge=0, le=31_536_000)]


def new_claim_id() -> str:
    """An id that nobody else has. Its first letters tell our placement groups from others'."""
    return f"noodle-{uuid4().hex[:12]}"


class Claim(Model):
    """What somebody asks of the manager. The id is the asker's own: the same id again is the same claim.

    `priority`: higher ones are served first. `wait_s`: how long it may wait to be held; None: as long as it takes, 0:
    not at all for room. `owner`: with whose end it ends ("": with nobody's). `lease_s`: it ends unless it is renewed
    that often. `on_loss`: what becomes of it when its node dies. `domain`: the label that a standby differs in ("": the
    node itself).
    Raises InvalidInput.
    """

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,100}$")]
    request: Request
    policy: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    priority: Priority = 0
    owner: str = ""
    lease_s: Annotated[float, Field(gt=0)] | None = None
    wait_s: WaitSeconds | None = None
    on_loss: OnLoss = "fail"
    domain: Annotated[str, Field(max_length=253)] = ""
