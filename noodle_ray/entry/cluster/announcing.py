"""Announcing: a head says on its network where it is, by mDNS, as long as it is there.

Only the text record counts, which is signed; the names and addresses beside it, which mDNS has for other programs, are
anybody's.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from platform import python_version
from types import TracebackType
from typing import Self

from zeroconf import Error, ServiceInfo, Zeroconf

from noodle_ray import __version__
from noodle_ray.entry.cluster.mdns import SERVICE, close_mdns, open_mdns
from noodle_ray.errors import Unavailable
from noodle_ray.nodes.announcement import Announcement, Versions
from noodle_ray.nodes.discovery import MAX_AGE_S, REISSUED_S

log = logging.getLogger(__name__)  # structlog would take longer to import than the rest of it


def versions_here() -> Versions:
    """What this host has installed; Ray is not imported for it."""
    return Versions(noodle_ray=__version__, ray=version("ray"), python=python_version())


class Announcing:
    """Announces a cluster from `start` to `stop`, or within a `with` block; signs anew every minute, on a thread.

    address: HOST:PORT of Ray's GCS as other hosts reach it. interface: this host's address on the network that is
    announced to; by default the one in `address`. Raises InvalidInput where a field, the token or the interface is
    wrong, and Unavailable where mDNS cannot be spoken here. May be started once.
    """

    def __init__(
        self,
        *,
        name: str,
        address: str,
        token: str,
        gateway_url: str = "",
        interface: str | None = None,
        every_s: float = REISSUED_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._announcement = _announcement(name, address, gateway_url, clock())
        self._token, self._every_s, self._clock = token, every_s, clock
        self._interface = interface or address.rpartition(":")[0]
        # Names of instances are never the same, so nobody has to give way; the cluster's name is in the text.
        self._instance = f"{name[:50]}-{secrets.token_hex(6)}"
        self._record()  # raises now what would be raised later
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sign_anew, name="announcing", daemon=True)
        self._zeroconf: Zeroconf | None = None

    def start(self) -> Self:
        """Begins; returns when it has been said the first time, after half a second."""
        self._zeroconf = open_mdns(self._interface)
        try:
            self._zeroconf.register_service(self._record(), cooperating_responders=True)
        except Error as error:
            self._zeroconf.close()
            raise Unavailable(f"the cluster could not be announced on {self._interface}: {error!r}") from error
        self._thread.start()
        return self

    def stop(self) -> None:
        """Says goodbye and ends; does nothing where it has not begun, or has ended."""
        self._ended.set()
        if self._zeroconf is None:
            return
        self._thread.join()
        close_mdns(self._zeroconf)
        self._zeroconf = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _record(self) -> ServiceInfo:
        host, _, port = self._announcement.address.rpartition(":")
        return ServiceInfo(
            SERVICE,
            f"{self._instance}.{SERVICE}",
            port=int(port),
            properties={**self._announcement.issued(self._clock()).sign(self._token)},
            server=f"{self._instance}.local.",  # not this host's own name, which another responder may look after
            parsed_addresses=[host],
            other_ttl=MAX_AGE_S,  # what others keep of it dies with its signature
        )

    def _sign_anew(self) -> None:
        assert self._zeroconf is not None
        while not self._ended.wait(self._every_s):
            try:
                self._zeroconf.update_service(self._record())
            except Exception:  # the network may be gone for now; the next one may be heard
                log.warning("announcement not renewed", exc_info=True)


def _announcement(name: str, address: str, gateway_url: str, at: float) -> Announcement:
    fields = {"name": name, "address": address, "gateway_url": gateway_url}
    return Announcement.parse({**fields, "versions": versions_here(), "issued_at": int(at)})
