"""Whether the ports that a cluster uses are free, or held by the cluster that runs."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import psutil

from noodle_ray.entry.cluster.cluster_file import ClusterFile
from noodle_ray.entry.doctor.finding import Finding, fail, ok, warn

USUAL = {"Ray": ("", 6379), "dashboard": ("127.0.0.1", 8265), "gateway": ("127.0.0.1", 8000)}
"""What `noodle up` takes where nobody has it: the address that it listens on ("": every one), and the port."""

CONNECT_TIMEOUT_S = 2.0


def check_ports(cluster: ClusterFile | None) -> list[Finding]:
    """`cluster`: the one that runs here, if one does."""
    if cluster is None:
        return [check_free(name, host, port) for name, (host, port) in USUAL.items()]
    urls = {"Ray": f"tcp://{cluster.address}", "dashboard": cluster.dashboard_url, "gateway": cluster.gateway_url}
    return [check_held(name, url) for name, url in urls.items() if url]


def check_free(name: str, host: str, port: int) -> Finding:
    """Whether the port can be taken; a taken one is no failure, for `noodle up` takes another then."""
    label = f"port {port}"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            found = f"cannot be taken for {name}: {(error.strerror or str(error)).lower()}{_holder(port)}"
            return warn(label, found, "`noodle up` takes another port; end what holds it where it must be this one")
    return ok(label, f"free for {name}")


def check_held(name: str, url: str) -> Finding:
    """Whether somebody listens where the running cluster should."""
    place = urlsplit(url)
    label = f"port {place.port}"
    try:
        with socket.create_connection((place.hostname or "", place.port or 0), CONNECT_TIMEOUT_S):
            return ok(label, f"held by {name} at {place.hostname}")
    except OSError as error:
        found = f"{name} does not listen at {place.hostname}: {error.strerror or error}"
        return fail(label, found, "`noodle down`, then `noodle up`; the logs are in the state directory")


def _holder(port: int) -> str:
    """Who listens there, as far as this user may know."""
    try:
        listening = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
        pids = sorted({one.pid for one in listening if one.laddr.port == port and one.pid})
        return "".join(f" (process {pid}, {psutil.Process(pid).name()})" for pid in pids)
    except psutil.Error:
        return ""
