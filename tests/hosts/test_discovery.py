"""Discovery between hosts: a head is found from another one, and what others say or repeat gets nobody in."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import queue
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from zeroconf import IPVersion, ServiceBrowser, ServiceStateChange, Zeroconf

from noodle_ray.entry.bench.hosts import Host, hosts, why_not
from noodle_ray.entry.cluster.mdns import SERVICE

WHY_NOT = why_not()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=f"there can be no hosts here: {WHY_NOT}")

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 10.0
# Each scene has a token, so that it is alone although all are on one network.
ALONE, PAIR, OLD, FORGER = (secrets.token_urlsafe(32) for _ in range(4))

# Announces until a line comes in: clusters as JSON, each with the age of its signature.
ANNOUNCE = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from noodle_ray.entry.cluster.announcing import Announcing
with ExitStack() as stack:
    for age_s, fields in json.loads(sys.argv[1]):
        stack.enter_context(Announcing(**fields, clock=lambda age_s=age_s: time.time() - age_s))
    print("on", flush=True)
    sys.stdin.readline()
"""
# Announces whatever it is given under a name, as a responder that is not ours.
REPEAT = """
import json, sys
from zeroconf import ServiceInfo, Zeroconf
from noodle_ray.entry.cluster.mdns import SERVICE
name, host, properties = json.loads(sys.argv[1])
with Zeroconf([host]) as responder:
    text = {key.encode(): value.encode() for key, value in properties.items()}
    info = ServiceInfo(SERVICE, f"{name}.{SERVICE}", port=1, properties=text, parsed_addresses=[host])
    responder.register_service(info, cooperating_responders=True)
    print("on", flush=True)
    sys.stdin.readline()
"""
# What is found, or why nothing is.
FIND = """
import json, sys
from noodle_ray.entry.cluster.hearing import find
from noodle_ray.errors import NoodleError
token, name, timeout_s = json.loads(sys.argv[1])
said = []
try:
    print(json.dumps({"found": find(token, name, timeout_s, progress=said.append).to_json(), "said": said}))
except NoodleError as error:
    print(json.dumps({"code": error.code, "message": error.message, "said": said}))
"""
# All that is announced as it is announced.
HEAR = """
import json
from noodle_ray.entry.cluster.hearing import hear
print(json.dumps([
    [one.instance, {key.decode(): value.decode() for key, value in one.properties.items()}] for one in hear(1.5)
]))
"""


def words(*given: str) -> list[str]:
    """A command that sees this checkout before any other."""
    return ["env", f"PYTHONPATH={ROOT}", sys.executable, *given]


def program(code: str, *given: object) -> list[str]:
    return words("-c", code, json.dumps(given))


@contextmanager
def running(host: Host, command: Sequence[str]) -> Iterator[list[str]]:
    """It runs there, from when it has said so to the end of the block; the list then holds its last words."""
    last_words: list[str] = []
    process = subprocess.Popen(host.command(*command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "on\n"
        yield last_words
        last_words.extend(process.communicate("off\n", timeout=TIMEOUT_S)[0].split())
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def cluster(name: str, host: Host, token: str, age_s: float = 0) -> tuple[float, dict[str, str]]:
    address = f"{host.address}:6379"
    return age_s, {"name": name, "address": address, "token": token, "gateway_url": f"http://{host.address}:8000"}


def asked(host: Host, token: str, name: str | None = None, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(host.run(*program(FIND, token, name, timeout_s)))
    return answer


@dataclass(frozen=True, slots=True)
class Network:
    """Two hosts with heads, and one that looks for them."""

    first: Host
    second: Host
    looking: Host


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    in_tmp = [path for path in (ROOT, Path(sys.prefix)) if path.is_relative_to("/tmp")]
    with hosts(3, keep=in_tmp) as (first, second, looking), ExitStack() as stack:
        heads = [cluster("lab", first, ALONE), cluster("one", first, PAIR), cluster("old", first, OLD, age_s=1020)]
        others = [cluster("two", second, PAIR), cluster("lab", second, FORGER)]
        stack.enter_context(running(first, program(ANNOUNCE, *heads)))
        stack.enter_context(running(second, program(ANNOUNCE, *others)))
        yield Network(first, second, looking)


def test_a_head_is_found_from_another_host_and_a_forger_is_not(network: Network) -> None:
    answer = asked(network.looking, ALONE)
    assert answer["found"]["name"] == "lab"
    assert answer["found"]["address"] == f"{network.first.address}:6379"
    assert answer["found"]["gateway_url"] == f"http://{network.first.address}:8000"
    forged = f"ignored: lab at {network.second.address}:6379 is signed with another token than this host's"
    assert forged in answer["said"]


def test_two_clusters_are_told_apart_by_name(network: Network) -> None:
    with ThreadPoolExecutor() as pool:
        one, two, either = pool.map(partial(asked, network.looking, PAIR), ("one", "two", None))
    assert one["found"]["address"] == f"{network.first.address}:6379"
    assert two["found"]["address"] == f"{network.second.address}:6379"
    assert either["code"] == "invalid_input"
    assert "choose one of one, two" in either["message"]


def test_where_nothing_is_found_it_is_told_why(network: Network) -> None:
    scenes = ((PAIR, "three"), (secrets.token_urlsafe(32), None), (OLD, None))
    with ThreadPoolExecutor() as pool:
        absent, strange, old = pool.map(lambda scene: asked(network.looking, *scene, timeout_s=4), scenes)
    assert absent["code"] == "not_found"
    assert "no cluster 'three'; known: lab (2 with another token, ignored)" in absent["message"]
    assert strange["code"] == "unauthorized"
    assert f"lab at {network.first.address}:6379 is signed with another token" in strange["message"]
    assert old["code"] == "conflict"
    assert f"old at {network.first.address}:6379 was signed 1" in old["message"]
    assert "minutes ago by this host's clock" in old["message"]


def test_what_is_repeated_leads_to_the_head_or_nowhere(network: Network) -> None:
    """Somebody repeats what was heard, as it is and with an address of its own."""
    heard = [properties for _, properties in json.loads(network.looking.run(*words("-c", HEAR)))]
    [real] = [one for one in heard if one["name"] == "lab" and network.first.address in one["address"]]
    me = network.second.address
    with (
        running(network.second, program(REPEAT, "repeated", me, real)),
        running(network.second, program(REPEAT, "changed", me, {**real, "address": f"{me}:6379"})),
    ):
        answer = asked(network.looking, ALONE, "lab")
        assert answer["found"]["address"] == real["address"] == f"{network.first.address}:6379"


def test_discover_lists_them(network: Network) -> None:
    settings = ("sh", "-c", f"mkdir -p ~/.noodle-ray && printf %s {ALONE} > ~/.noodle-ray/token")
    network.looking.run(*settings)
    run = "from noodle_ray.entry.cli.main import run; run()"
    listed = json.loads(network.looking.run(*words("-c", run, "discover", "--json")))
    standings = sorted((one["name"], one["address"].partition(":")[0], one["standing"]) for one in listed)
    assert standings == sorted(
        [
            ("lab", network.first.address, "ours"),
            ("lab", network.second.address, "another token"),
            ("old", network.first.address, "another token"),
            ("one", network.first.address, "another token"),
            ("two", network.second.address, "another token"),
        ]
    )


@contextmanager
def on_the_wire(interface: str, packets: list[bytes]) -> Iterator[None]:
    """All that passes there while the block runs."""
    ended = threading.Event()
    with closing(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))) as wire:
        wire.bind((interface, 0))
        wire.settimeout(0.2)

        def listen() -> None:
            while not ended.is_set():
                try:
                    packets.append(wire.recv(65535))
                except TimeoutError:
                    continue

        listening = threading.Thread(target=listen)
        listening.start()
        yield
        ended.set()
        listening.join()


def forms(token: str) -> list[bytes]:
    """The token, what is made of it elsewhere, and the key that signs: as they are, in hexadecimal and in base 64."""
    key = hmac.digest(token.encode(), b"noodle-ray announcement 1", "sha256")
    raw = [token.encode(), hashlib.sha256(token.encode()).digest(), key]
    return [form for one in raw for form in (one, one.hex().encode(), base64.b64encode(one).rstrip(b"="))]


def test_nothing_of_the_token_is_on_the_wire(network: Network) -> None:
    token = secrets.token_urlsafe(32)
    packets: list[bytes] = []
    with (
        on_the_wire(network.first.name.rpartition("-")[0], packets),
        running(network.first, program(ANNOUNCE, cluster("wired", network.first, token))),
    ):
        assert asked(network.looking, token)["found"]["name"] == "wired"
    assert any(f"address={network.first.address}:6379".encode() in packet for packet in packets)
    assert [form for form in forms(token) for packet in packets if form in packet] == []


def test_goodbye_is_said(network: Network) -> None:
    """As any mDNS browser hears it, here one on this machine."""
    changes: queue.Queue[tuple[str, ServiceStateChange]] = queue.Queue()

    def on_change(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if name.startswith("leaving"):
            changes.put((name, state_change))

    here = f"{network.first.address.rpartition('.')[0]}.254"
    with (
        Zeroconf([here], ip_version=IPVersion.V4Only) as zeroconf,
        ServiceBrowser(zeroconf, SERVICE, handlers=[on_change]),
    ):
        with running(network.first, program(ANNOUNCE, cluster("leaving", network.first, ALONE))):
            name, change = changes.get(timeout=TIMEOUT_S)
            assert change is ServiceStateChange.Added
        while change is not ServiceStateChange.Removed:
            other, change = changes.get(timeout=TIMEOUT_S)
            assert other == name


# Which of these words pass an interface, until a line comes in.
LISTEN = """
import json, select, socket, sys
interface, *wanted = json.loads(sys.argv[1])
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind((interface, 0))
print("on", flush=True)
packets = []
while (ready := select.select([wire, sys.stdin], [], [])[0]) != [sys.stdin]:
    packets.append(wire.recv(65535))
print(*[word for word in wanted if any(word.encode() in packet for packet in packets)])
"""


def test_it_is_announced_on_its_own_network_only(network: Network) -> None:
    """The first host is on another network, too, whose cable is looked at from its other end."""
    first = network.first
    first.run("ip", "link", "add", "second", "type", "veth", "peer", "name", "far")
    first.run("ip", "addr", "add", "10.99.0.1/24", "dev", "second")
    first.run("sh", "-c", "ip link set second up; ip link set far up")
    here, there = cluster("here", first, ALONE), cluster("there", first, ALONE)
    there[1]["interface"] = "10.99.0.1"
    with running(first, program(LISTEN, "far", "name=here", "name=there")) as seen:  # noqa: SIM117  (one after the other)
        with running(first, program(ANNOUNCE, here, there)):
            pass
    first.run("ip", "link", "delete", "second")
    assert seen == ["name=there"]


def test_who_is_cut_off_hears_nothing_and_is_told_what_to_do(network: Network) -> None:
    network.looking.unplug()
    try:
        answer = asked(network.looking, ALONE, timeout_s=2)
    finally:
        network.looking.plug_in()
    assert answer["code"] == "unavailable"
    assert "no cluster was heard within 2 s" in answer["message"]
    assert "`noodle join ADDRESS`" in answer["message"]
    assert asked(network.looking, ALONE)["found"]["name"] == "lab"
