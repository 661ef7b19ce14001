"""A host's cable through a relay that holds each frame back for a time of its own, so that some overtake others.

For kernels without netem: the relay is a thread between two packet sockets.
"""

from __future__ import annotations

import heapq
import random
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event, Thread

from noodle_ray.entry.bench.hosts import Host, ip
from noodle_ray.errors import InvalidInput

LONGEST_S = 60.0
LOOK_S = 0.2
FRAME_BYTES = 65_536

_ETH_P_ALL, _PACKET_OUTGOING = 0x0003, 4
_SIOCETHTOOL = 0x8946
_OFFLOADS = (0x17, 0x1F, 0x25, 0x24)  # checksums, TCP segments, and both kinds of large frames
"""What a network card would do for the kernel, by ethtool's numbers. With a relay as the card, nobody does it."""

_PLAIN = f"""
import array, fcntl, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any:
    for command in {_OFFLOADS}:
        value = array.array("I", [command, 0])
        fcntl.ioctl(any, {_SIOCETHTOOL}, struct.pack("16sP", sys.argv[1].encode(), value.buffer_info()[0]))
"""


@dataclass(order=True, slots=True)
class _Frame:
    due: float
    number: int
    content: bytes = field(compare=False)
    out: socket.socket = field(compare=False)


@contextmanager
def delaying(host: Host, others: Sequence[Host], shortest_s: float, longest_s: float, seed: int = 1) -> Iterator[None]:
    """What goes to the host and comes from it is under way for a random time between the two, each way.

    others: the other hosts of its network. Raises InvalidInput.
    """
    if not 0 <= shortest_s <= longest_s <= LONGEST_S:
        raise InvalidInput.of("longest_s", f"must be at least shortest_s, and at most {LONGEST_S:g}", longest_s)
    for one in (host, *others):
        one.run(sys.executable, "-c", _PLAIN, "eth0")
    bridge = host.link.rpartition("h")[0]
    subprocess.run([sys.executable, "-c", _PLAIN, bridge], check=True)
    inner, outer = f"{host.link}r", f"{host.link}s"
    ip("link", "add", inner, "type", "veth", "peer", "name", outer)
    try:
        for link in (inner, outer):
            subprocess.run([sys.executable, "-c", _PLAIN, link], check=True)
        ip("link", "set", outer, "master", bridge, "up")
        ip("link", "set", inner, "up")
        ip("link", "set", host.link, "nomaster")
        with _relay(host.link, inner, shortest_s, longest_s, seed):
            yield
    finally:
        try:
            ip("link", "delete", inner)
        finally:
            ip("link", "set", host.link, "master", bridge)


@contextmanager
def _relay(one: str, other: str, shortest_s: float, longest_s: float, seed: int) -> Iterator[None]:
    over = Event()
    with _packets(one) as first, _packets(other) as second:
        thread = Thread(target=_pass_on, args=(first, second, shortest_s, longest_s, seed, over))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _packets(link: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(_ETH_P_ALL))
    opened.bind((link, 0))
    opened.setblocking(False)
    return opened


def _pass_on(
    one: socket.socket, other: socket.socket, shortest_s: float, longest_s: float, seed: int, over: Event
) -> None:
    chance, waiting, number = random.Random(seed), list[_Frame](), 0  # noqa: S311
    ways = {one: other, other: one}
    while not over.is_set():
        pause = min(max(waiting[0].due - time.monotonic(), 0.0), LOOK_S) if waiting else LOOK_S
        readable, _, _ = select.select(list(ways), [], [], pause)
        for arrived in readable:
            content, sender = arrived.recvfrom(FRAME_BYTES)
            if sender[2] != _PACKET_OUTGOING:  # not what was sent here just before
                number += 1
                due = time.monotonic() + chance.uniform(shortest_s, longest_s)
                heapq.heappush(waiting, _Frame(due, number, content, ways[arrived]))
        while waiting and waiting[0].due <= time.monotonic():
            frame = heapq.heappop(waiting)
            with suppress(OSError):  # a cable that is out, or full, loses it
                frame.out.send(frame.content)
