"""The routes that are probed: what is sent to each, and whether an answer says what was asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import uuid4

from noodle_ray.entry.http_client import Answer, GatewayClient
from noodle_ray.errors import NoodleError, shorten
from noodle_ray.gateway.resources import OWNER
from noodle_ray.placement.allocation import UNSETTLED

Route = Literal["nodes", "allocate", "module", "fusion"]

NODES, ALLOCATIONS, FUSION = "/api/distributed/nodes", "/api/distributed/resources/allocations", "/api/ai/fusion"
CPUS, LEASE_S = 0.01, 120.0
"""What is held for a moment; where it is not freed, its lease frees it."""

WAITS, LISTEN_S = 202, 2.0
"""How an allocation that waits is answered for, and how long each further question waits for it with us."""

TEXTS = (
    "the kettle is whistling",
    "the queue is empty again",
    "a dog asleep on the stairs",
    "rain on the roof all night",
    "the last train has left",
    "somebody is at the door",
    "the tests have passed",
)
CANDIDATES = ("something hot to drink", "an animal at home", "the weather", "a journey", "good news")


@dataclass(frozen=True, slots=True)
class Call:
    """The module function that is called, which gives back what it is given. wait_s: how long an allocation may wait to
    be held."""

    module: str = "bench-echo"
    function: str = "echo"
    wait_s: float = 8.0


@dataclass(frozen=True, slots=True)
class Told:
    """The last answer of a probe. retried: whether any needed a second address; problem: "" where all is as asked."""

    answer: Answer
    retried: bool
    problem: str = ""


Ask = Callable[[GatewayClient, Call, int], Awaitable[Told]]


async def _nodes(client: GatewayClient, call: Call, number: int) -> Told:
    return _told(await client.ask("GET", NODES), lambda found: isinstance(found, list) and bool(found))


async def _allocate(client: GatewayClient, call: Call, number: int) -> Told:
    """Holds a little and frees it. It has an id of its own: asking twice holds it once."""
    name = f"noodle-chaos-{number}-{uuid4().hex[:12]}"
    wanted = {"demand": {"cpus": CPUS}, "lease_s": LEASE_S, "wait_s": call.wait_s, "id": name}
    made = _told(await _held(client, wanted), _is_held)
    if made.problem:
        return made
    freed = await client.ask("DELETE", f"{ALLOCATIONS}/{made.answer.json()['id']}")
    # Not there: so it is where the first of two tries had freed it.
    done = freed.status == 204 or (freed.retried and freed.status == 404)
    return Told(freed, made.retried or freed.retried, "" if done else _refused(freed))


async def _held(client: GatewayClient, wanted: Mapping[str, Any]) -> Answer:
    """What is told of it when it does not wait for room any more. One that waited in vain is not there any more."""
    answer = await client.ask("POST", ALLOCATIONS, wanted, repeatable=True)
    while answer.status == WAITS or (answer.status == 200 and answer.json()["state"] in UNSETTLED):
        answer = await client.ask("GET", f"{ALLOCATIONS}/{answer.json()['id']}?wait_s={LISTEN_S:g}")
    return answer


async def _module(client: GatewayClient, call: Call, number: int) -> Told:
    body = {"function": call.function, "args": [number]}
    answer = await client.ask("POST", f"/api/modules/{call.module}/call", body, repeatable=True)
    return _told(answer, lambda found: isinstance(found, dict) and found.get("result") == number)


async def _fusion(client: GatewayClient, call: Call, number: int) -> Told:
    """An answer that says what came too late for it, or failed, is one. No text comes twice: none is remembered."""
    body = {"text": f"{TEXTS[number % len(TEXTS)]}, number {number}", "candidates": list(CANDIDATES)}
    answer = await client.ask("POST", FUSION, body, repeatable=True)
    return _told(answer, lambda found: isinstance(found, dict) and "modalities_used" in found)


PROBES: Mapping[Route, Ask] = {"nodes": _nodes, "allocate": _allocate, "module": _module, "fusion": _fusion}


async def free_leftovers(client: GatewayClient) -> int:
    """Frees all that is held over HTTP, by whomever; how many there were. Raises NoodleError."""
    held = (await client.ask("GET", ALLOCATIONS)).result()
    left = [one["id"] for one in held if one["owner"] == OWNER]
    for allocation_id in left:
        freed = await client.ask("DELETE", f"{ALLOCATIONS}/{allocation_id}")
        if freed.status != 404:
            freed.result()
    return len(left)


def _is_held(found: Any) -> bool:
    return isinstance(found, dict) and found.get("state") == "held" and bool(found.get("id"))


def _told(answer: Answer, is_right: Callable[[Any], bool]) -> Told:
    if answer.status >= 300:
        return Told(answer, answer.retried, _refused(answer))
    try:
        right = is_right(answer.json())
    except NoodleError as error:
        return Told(answer, answer.retried, error.message)
    return Told(
        answer, answer.retried, "" if right else f"{answer.status}, but not what was asked for: {_text(answer)}"
    )


def _refused(answer: Answer) -> str:
    """Without the request's id: what is refused alike reads alike."""
    try:
        told = answer.json()["error"]
        return shorten(f"{answer.status}: {told['code']}: {told['message']}", 160)
    except (NoodleError, KeyError, TypeError):
        return f"{answer.status}: {_text(answer)}"


def _text(answer: Answer) -> str:
    return shorten(answer.body.decode(errors="replace"), 160)
