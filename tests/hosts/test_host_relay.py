"""A cable through the relay: all arrives, later, and not in the order in which it was sent."""

import subprocess
import sys

import pytest

from noodle_ray.entry.bench.host_cluster import visible
from noodle_ray.entry.bench.host_relay import delaying
from noodle_ray.entry.bench.hosts import Host, hosts, why_not
from noodle_ray.errors import InvalidInput

pytestmark = pytest.mark.skipif(bool(why_not()), reason=f"there can be no hosts here: {why_not()}")

LISTEN = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
    port.bind(("0.0.0.0", 5005))
    port.settimeout(5)
    print("listening", flush=True)
    print(*[port.recv(100).decode() for _ in range(100)], flush=True)
"""
SEND = """
import socket, sys, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
    for number in range(100):
        port.sendto(str(number).encode(), (sys.argv[1], 5005))
        time.sleep(0.002)
"""
SERVE = """
import socket
with socket.create_server(("0.0.0.0", 5006)) as server:
    print("listening", flush=True)
    one, _ = server.accept()
    with one:
        total = 0
        while data := one.recv(65536):
            total += len(data)
    print(total, flush=True)
"""
PUSH = """
import socket, sys
with socket.create_connection((sys.argv[1], 5006)) as way:
    way.sendall(bytes(1_000_000))
"""


def exchange(sender: Host, receiver: Host, serve: str, send: str) -> str:
    """What the receiver prints of what the sender sends."""
    command = receiver.command(sys.executable, "-c", serve)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listening:
        assert listening.stdout is not None
        assert listening.stdout.readline() == "listening\n"
        sender.run(sys.executable, "-c", send, receiver.address)
        return listening.stdout.readline().strip()


def test_nothing_is_lost_and_some_overtake_others() -> None:
    with hosts(3, keep=visible()) as (one, two, three), delaying(two, (one, three), 0.0, 0.05):
        got = [int(number) for number in exchange(one, two, LISTEN, SEND).split()]
        assert sorted(got) == list(range(100))
        assert got != list(range(100))
        # Streams come whole and in order, by their own means; those that pass the relay and those that do not.
        assert exchange(one, two, SERVE, PUSH) == "1000000"
        assert exchange(two, three, SERVE, PUSH) == "1000000"
        assert exchange(one, three, SERVE, PUSH) == "1000000"


def test_afterwards_the_cable_is_a_cable_again() -> None:
    with hosts(2, keep=visible()) as (one, two):
        with delaying(two, (one,), 0.0, 0.05):
            assert exchange(one, two, SERVE, PUSH) == "1000000"
        got = [int(number) for number in exchange(one, two, LISTEN, SEND).split()]
        assert got == list(range(100))


def test_times_must_make_sense() -> None:
    with hosts(1) as (one,), pytest.raises(InvalidInput), delaying(one, (), 0.2, 0.1):
        pass
