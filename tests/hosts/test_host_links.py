"""Broken networks between hosts: what is to be lost is lost, nothing else, and only for as long as it is to be."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from noodle_ray.entry.bench import host_links
from noodle_ray.entry.bench.host_links import THIN_LINEAR, cut, deaf, flapping, losing, thin_linear
from noodle_ray.entry.bench.hosts import Host, hosts, why_not
from noodle_ray.errors import InvalidInput

PYTHON = str(Path(sys.executable).resolve())  # the one below a virtual environment, which may lie in /tmp
WHY_NOT = why_not() or host_links.why_not()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=f"there can be no hosts here: {WHY_NOT}")

PORT = 5001
PATIENCE_S = 1.0
# Sends back each datagram that it gets.
ECHO = f"""
import socket
echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
echo.bind(("0.0.0.0", {PORT}))
print("on", flush=True)
while True:
    echo.sendto(*echo.recvfrom(100))
"""
# Counts how many of so many come back from an address.
COUNT = f"""
import socket, sys
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.settimeout({PATIENCE_S})
sent, back = int(sys.argv[2]), 0
for number in range(sent):
    one.sendto(b"?", (sys.argv[1], {PORT}))
    if sent == 1 or number % 10 == 9 or number == sent - 1:
        try:
            while back <= number:
                one.recv(100)
                back += 1
                one.settimeout(0.05)
        except TimeoutError:
            pass
        one.settimeout({PATIENCE_S} if sent == 1 else 0.05)
print(back)
"""
# Prints what comes within three seconds.
HEAR = """
import socket
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.bind(("0.0.0.0", 5002))
one.settimeout(3)
print("on", flush=True)
print(one.recv(9).decode())
"""


@pytest.fixture(scope="module")
def three() -> Iterator[list[Host]]:
    """Three hosts, each of which echoes."""
    with hosts(3) as made:
        echoes = [subprocess.Popen(host.command(PYTHON, "-c", ECHO), stdout=subprocess.PIPE) for host in made]
        for echo in echoes:
            assert echo.stdout is not None
            assert echo.stdout.readline() == b"on\n"
        yield made
        for host in made:
            for pid in host.processes():
                os.kill(pid, signal.SIGKILL)
        for echo in echoes:
            echo.wait()
            assert echo.stdout is not None
            echo.stdout.close()


def back(asking: Host, other: Host, sent: int = 1) -> int:
    return int(asking.run(PYTHON, "-c", COUNT, other.address, str(sent)))


def heard(host: Host, asking: Host) -> bool:
    """Whether what the one sends reaches the other, whose answer goes elsewhere: to this machine."""
    process = subprocess.Popen(
        host.command(PYTHON, "-c", HEAR),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "on\n"
    asking.run(PYTHON, "-c", f"import socket; socket.socket(2, 2).sendto(b'hi', ('{host.address}', 5002))")
    said, _ = process.communicate(timeout=20)
    return said == "hi\n"


def test_a_share_of_the_packets_is_lost(three: list[Host]) -> None:
    first, second, third = three
    assert back(second, first, 300) == 300
    with losing(first, 20):
        # One way: what comes to the first. 300 tries at .8 have a standard deviation of 7.
        assert 190 < back(second, first, 300) < 285
        assert back(second, third, 300) == 300
    assert back(second, first, 300) == 300


def test_a_one_way_cut_is_one_way(three: list[Host]) -> None:
    first, second, third = three
    with deaf(first, [second]):
        assert back(second, first) == back(first, second) == 0  # either way something of it has to come to the first
        assert heard(second, first)
        assert not heard(first, second)
        assert back(third, first) == back(first, third) == 1
    assert back(second, first) == 1


def test_a_cut_divides_two_groups(three: list[Host]) -> None:
    first, second, third = three
    with cut([first], [second]):
        assert not heard(first, second)
        assert not heard(second, first)
        assert back(third, first) == back(third, second) == 1
    assert back(first, second) == 1


def test_faults_stand_side_by_side_and_each_goes_by_itself(three: list[Host]) -> None:
    first, second, third = three
    with deaf(first, [second]):
        with deaf(first, [third]):
            assert back(second, first) == back(third, first) == 0
        assert (back(second, first), back(third, first)) == (0, 1)
    assert back(second, first) == 1


def test_a_flapping_cable_is_in_and_out(three: list[Host]) -> None:
    first = three[0]
    seen = set()
    with flapping(first, in_s=0.4, out_s=0.4):
        deadline = time.monotonic() + 20
        while len(seen) < 2 and time.monotonic() < deadline:
            seen.add(_answers(first.address))
    assert seen == {True, False}
    assert back(three[1], first) == 1


def _answers(address: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.1)
        try:
            asking.sendto(b"?", (address, PORT))
            return bool(asking.recv(100))
        except OSError:
            return False


@pytest.mark.parametrize("percent", [0, 100])
def test_a_share_is_neither_nothing_nor_all(three: list[Host], percent: int) -> None:
    with pytest.raises(InvalidInput, match="percent"), losing(three[0], percent):
        pass


def test_a_host_repeats_lost_packets_as_it_is_told_and_only_for_a_while(three: list[Host]) -> None:
    def settings() -> list[str]:
        return [host.run("cat", f"/proc/sys/net/ipv4/{THIN_LINEAR}").strip() for host in three[:2]]

    before = settings()
    for value in (0, 1):
        with thin_linear(three[0], value):
            assert settings() == [str(value), before[1]]
    assert settings() == before
