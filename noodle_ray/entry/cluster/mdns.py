"""mDNS as this project speaks it: over IPv4, on interfaces that are named, with the service type of its own."""

from __future__ import annotations

import socket
from contextlib import suppress

import psutil
from zeroconf import Error, IPVersion, Zeroconf

from noodle_ray.errors import InvalidInput, Unavailable

SERVICE = "_noodle-ray._tcp.local."


def open_mdns(interface: str | None) -> Zeroconf:
    """Its sockets, on the interface with this address of this host, or on all but the loopback.

    Raises InvalidInput where this host has no such address, and Unavailable where there is no network or no socket.
    """
    own = _own_addresses()
    if interface is not None and interface not in own:
        raise InvalidInput.of("interface", f"must be an address of this host: {', '.join(own)}", interface)
    chosen = [interface] if interface else [address for address in own if not address.startswith("127.")]
    if not chosen:
        raise Unavailable("this host is on no IPv4 network")
    try:
        return Zeroconf(chosen, ip_version=IPVersion.V4Only, use_asyncio=False)
    except OSError as error:
        raise Unavailable(f"mDNS cannot be spoken here: UDP port 5353 on {', '.join(chosen)}: {error}") from error


def close_mdns(zeroconf: Zeroconf) -> None:
    """Says goodbye for all that was announced through it, and ends its thread and sockets."""
    with suppress(Error):  # its thread was held up for ten seconds: then the goodbye is missing
        zeroconf.close()


def _own_addresses() -> list[str]:
    """This host's IPv4 addresses."""
    entries = [entry for _, entries in sorted(psutil.net_if_addrs().items()) for entry in entries]
    return [entry.address for entry in entries if entry.family == socket.AF_INET]
