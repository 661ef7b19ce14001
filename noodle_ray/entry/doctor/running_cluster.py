"""Whether the cluster of this state directory lives: its processes, Ray, the gateway, and what a dead one left."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx

from noodle_ray.entry.cluster.cluster_file import ClusterFile
from noodle_ray.entry.doctor.clocks import Offset, offset_of_date, offset_of_report
from noodle_ray.entry.doctor.finding import Finding, fail, ok, skipped

ASK_TIMEOUT_S = 10.0
AGAIN = "`noodle up` goes on with it, `noodle down` ends it for good; logs are in the state directory"
NONE = "no cluster was started from this state directory"


def check_processes(cluster: ClusterFile | None) -> Finding:
    """Whether the processes that `noodle up` noted still run."""
    name = "cluster"
    if cluster is None:
        return skipped(name, NONE)
    if cluster.attached:
        return ok(name, f"attached to {cluster.address}: its processes are not ours")
    gone = [f"{one.role} {one.node_address}" for one in cluster.processes if not one.is_running()]
    if gone:
        return fail(name, f"at {cluster.address}: {', '.join(gone)} ended", AGAIN)
    return ok(name, f"at {cluster.address}, nodes on this machine that run: {len(cluster.processes)}")


def check_ray(address: str, token: Path) -> Finding:
    """Asks Ray's control service, as `ray health-check` does, in a process of its own."""
    host, _, port = address.rpartition(":")
    try:
        # Ray itself goes on trying for half a minute where nobody listens.
        socket.create_connection((host, int(port)), ASK_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        return fail("ray", f"{address} does not answer: {error}", AGAIN)
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    if not token.exists():
        environment = dict(os.environ)
    try:
        asked = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=3 * ASK_TIMEOUT_S, env=environment
        )
    except subprocess.TimeoutExpired:
        return fail("ray", f"{address} did not answer within {3 * ASK_TIMEOUT_S:g} s", AGAIN)
    if asked.returncode:
        return fail("ray", f"{address} does not answer: {_last_line(asked.stderr)}", AGAIN)
    return ok("ray", f"{address} answers")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:160] if lines else "it said nothing"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the gateway said to one question, and when this machine asked and heard; `problem` where it said nothing."""

    status: int = 0
    asked_at: float = 0.0
    heard_at: float = 0.0
    date: str = ""
    body: Any = None
    problem: str = ""

    @property
    def offset(self) -> Offset | None:
        """Of the gateway's clock from this machine's."""
        try:
            date = parsedate_to_datetime(self.date).timestamp()
        except (TypeError, ValueError):
            return None
        return offset_of_date(self.asked_at, self.heard_at, date)


def ask_gateway(url: str, token: str = "", clock: Callable[[], float] = time.time) -> Answer:
    """One GET. Never raises for what the other side does."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    asked_at = clock()
    try:
        said = httpx.get(url, headers=headers, timeout=ASK_TIMEOUT_S, trust_env=False)
        body = said.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return Answer(problem=f"{type(error).__name__}: {error}"[:160])
    return Answer(said.status_code, asked_at, clock(), said.headers.get("date", ""), body)


def check_gateway(url: str, health: Answer, nodes: Answer) -> Finding:
    """`health`: what /healthz answered; `nodes`: what the list of nodes, which wants the token."""
    if health.problem:
        return fail("gateway", f"{url} does not answer: {health.problem}", AGAIN)
    if health.status != 200:
        advice = "a component does not answer: `noodle status` says more; it may be starting"
        return fail("gateway", f"{url}/healthz says {health.status}", advice)
    if nodes.status == 401:
        return fail("gateway", f"{url} refuses the token that is here", "copy the token from the cluster's head")
    return ok("gateway", f"{url}/healthz says ok")


def node_offsets(nodes: Answer, longest_age_s: float) -> list[tuple[str, Offset]]:
    """Of each living node's clock from the head's, from the times in its last report."""
    listed: Sequence[Mapping[str, Any]] = nodes.body if nodes.status == 200 else ()
    return [
        (node["name"], offset_of_report(node["metrics"]["taken_at"], node["heard_at"], longest_age_s))
        for node in listed
        if node["state"] == "alive" and node["metrics"]
    ]
