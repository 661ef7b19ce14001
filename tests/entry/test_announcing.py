"""Announcing and hearing by real mDNS, on the loopback interface: no other host hears it."""

from __future__ import annotations

import itertools
import json
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner
from zeroconf import EventLoopBlocked, IPVersion, ServiceInfo, Zeroconf

from noodle_ray.entry.cli.main import app
from noodle_ray.entry.cluster import hearing, mdns
from noodle_ray.entry.cluster.announcing import Announcing, versions_here
from noodle_ray.entry.cluster.hearing import find, hear
from noodle_ray.entry.cluster.mdns import SERVICE
from noodle_ray.errors import Conflict, InvalidInput, NotFound, Unauthorized, Unavailable
from noodle_ray.nodes.announcement import Announcement, read
from noodle_ray.nodes.discovery import Heard

LO = "127.0.0.1"
ADDRESS = "10.77.0.1:6379"
# Other tests may run on this machine at the same time: what is theirs has another token and another name.
TOKEN, OTHER = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
LAB = f"lab-{secrets.token_hex(4)}"
TWINS, FOREIGN, OLD, NEW = f"{LAB}-twins", f"{LAB}-foreign", f"{LAB}-old", f"{LAB}-new"
GATEWAY = "http://10.77.0.1:8000"
TIMEOUT_S = 20.0
"""Far beyond what it takes; `find` is back much earlier where there is something."""


def announcing(name: str = LAB, address: str = ADDRESS, token: str = TOKEN) -> Announcing:
    return Announcing(name=name, address=address, token=token, gateway_url=GATEWAY, interface=LO)


def found(name: str | None = None, token: str = TOKEN, timeout_s: float = TIMEOUT_S) -> Announcement:
    return find(token, name, timeout_s, interface=LO)


@contextmanager
def recorded(instance: str, properties: Mapping[bytes, bytes | None] | bytes) -> Iterator[None]:
    """Anything at all, announced under our type of service by a responder of its own."""
    text = properties if isinstance(properties, bytes) else {**properties}
    info = ServiceInfo(SERVICE, f"{instance}.{SERVICE}", port=1, properties=text, parsed_addresses=["10.66.6.6"])
    with Zeroconf([LO], ip_version=IPVersion.V4Only) as responder:
        responder.register_service(info, cooperating_responders=True)
        yield


@pytest.fixture(scope="module", autouse=True)
def network() -> Iterator[None]:
    """What there is to be heard: two clusters, one of them with two heads, and what others say."""
    with ExitStack() as stack:
        for head in (
            announcing(),
            announcing(TWINS, "10.77.0.2:6379"),
            announcing(TWINS, "10.77.0.3:6379"),
            announcing(LAB, "10.66.6.6:6379", OTHER),
            announcing(FOREIGN, "10.66.6.6:6379", OTHER),
            Announcing(name=OLD, address=ADDRESS, token=TOKEN, interface=LO, clock=lambda: time.time() - 1020),
        ):
            stack.enter_context(head)
        stack.enter_context(recorded(f"{LAB}-noise", b"\x05\x1b[2J=" + b"\xff" * 40))
        stack.enter_context(recorded(f"{LAB}-nothing", {}))
        yield


def instances(heard: list[Heard], name: str) -> list[Heard]:
    return [one for one in heard if one.properties.get(b"name") == name.encode()]


def test_a_head_is_found() -> None:
    there = found(LAB)
    assert (there.name, there.address, there.gateway_url) == (LAB, ADDRESS, GATEWAY)
    assert there.versions == versions_here()
    assert abs(there.issued_at - time.time()) < 600


def test_several_are_told() -> None:
    with pytest.raises(InvalidInput, match=f"choose one of {LAB}, {TWINS}"):
        found()
    with pytest.raises(NotFound, match=f"no cluster 'other'; known: .*{FOREIGN} .1 with another token, ignored., "):
        found("other", timeout_s=3.0)


def test_two_heads_of_one_name_are_told() -> None:
    with pytest.raises(Conflict, match=r"heads at 10\.77\.0\.2:6379, 10\.77\.0\.3:6379 announce the same cluster"):
        found(TWINS)


def test_forged_ones_and_noise_are_ignored_and_told() -> None:
    said: list[str] = []
    assert find(TOKEN, LAB, TIMEOUT_S, interface=LO, progress=said.append).address == ADDRESS
    assert f"ignored: {LAB} at 10.66.6.6:6379 is signed with another token than this host's" in said
    assert [line for line in said if line.startswith(f"ignored: {OLD} at {ADDRESS} was signed ")]
    [told] = [line for line in said if "cannot be read" in line]
    assert int(told.split()[1]) >= 2
    assert told.isprintable()


def test_a_forged_record_does_not_replace_the_real_one() -> None:
    """One under the very name of the instance, which mDNS has replace what was there."""
    heard = hear(TIMEOUT_S, LO, lambda one: one.properties.get(b"address") == ADDRESS.encode())
    one = next(one for one in instances(heard, LAB) if one.properties[b"address"] == ADDRESS.encode())
    with recorded(one.instance, {**one.properties, b"address": b"10.66.6.6:6379"}):
        assert found(LAB).address == ADDRESS


def test_only_another_token_or_an_old_recording_is_told() -> None:
    with pytest.raises(Unauthorized, match="bring the token"):
        found(FOREIGN, timeout_s=3.0)
    with pytest.raises(Conflict, match=r"was signed 1\d minutes ago"):
        found(OLD, timeout_s=3.0)


def test_other_versions_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    others = versions_here().model_copy(update={"ray": "2.59.1"})
    monkeypatch.setattr(hearing, "versions_here", lambda: others)
    with pytest.raises(Conflict, match=r"Ray 2\.59\.1 .*install here what runs there"):
        found(LAB)


def test_it_ends_when_it_is_to_and_leaves_no_thread() -> None:
    before = threading.active_count()
    head = announcing(NEW)
    head.stop()  # it has not begun
    head.start()
    assert found(NEW).address == ADDRESS
    head.stop()
    head.stop()
    assert threading.active_count() == before
    assert not instances(hear(1.5, LO), NEW)


def test_it_is_signed_anew_in_time() -> None:
    clock = itertools.count(time.time())
    with Announcing(name=NEW, address=ADDRESS, token=TOKEN, interface=LO, every_s=0.1, clock=lambda: next(clock)):
        heard = [read(one.properties) for one in instances(hear(3.0, LO), NEW)]
    assert len({signed.announcement.issued_at for signed in heard}) > 1
    assert all(signed.fits(TOKEN) for signed in heard)


def test_what_cannot_be_said_now_is_said_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = threading.Event()

    def fail(self: Zeroconf, info: ServiceInfo) -> None:
        tried.set()
        raise OSError("no network")

    with monkeypatch.context() as broken:
        broken.setattr(Zeroconf, "update_service", fail)
        head = Announcing(name=NEW, address=ADDRESS, token=TOKEN, interface=LO, every_s=0.1).start()
        assert tried.wait(TIMEOUT_S)
    assert found(NEW).address == ADDRESS
    head.stop()
    assert "announcement not renewed" in caplog.text


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("name", "my lab", "name: must be 1 to 63 letters"),
        ("address", "127.0.0.2:6379", "address: must be IPV4:PORT, where other hosts reach it"),
        ("gateway_url", "10.77.0.1:8000", "gateway_url: must be http://"),
        ("token", "short", "token: must be at least 32 random characters"),
    ],
)
def test_what_cannot_be_announced_is_refused_at_once(field: str, value: str, fault: str) -> None:
    with pytest.raises(InvalidInput, match=fault):
        Announcing(**{"name": LAB, "address": ADDRESS, "token": TOKEN, field: value})  # type: ignore[arg-type]


def test_an_interface_is_this_hosts() -> None:
    with pytest.raises(InvalidInput, match=r"interface: must be an address of this host: .*127\.0\.0\.1"):
        Announcing(name=LAB, address="192.0.2.77:6379", token=TOKEN).start()
    with pytest.raises(InvalidInput, match="interface"):
        hear(1.0, "192.0.2.77")


def test_without_a_network_or_a_socket_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as alone:
        alone.setattr(psutil, "net_if_addrs", lambda: {})
        with pytest.raises(Unavailable, match="this host is on no IPv4 network"):
            hear(1.0)

    def taken(*interfaces: object, **options: object) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(mdns, "Zeroconf", taken)
    with pytest.raises(Unavailable, match=r"UDP port 5353 on 127\.0\.0\.1: .*already in use"):
        announcing().start()


def test_a_responder_that_hangs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(self: Zeroconf, info: ServiceInfo, **options: object) -> None:
        raise EventLoopBlocked

    monkeypatch.setattr(Zeroconf, "register_service", hang)
    before = threading.active_count()
    with pytest.raises(Unavailable, match="could not be announced on 127"):
        announcing().start()
    assert threading.active_count() == before


def test_what_floods_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "MOST_HEARD", 1)
    assert len(hear(2.0, LO)) == 1


def discover(state_dir: Path, *words: str) -> tuple[str, str]:
    """What it prints, once all are heard: a busy machine may take longer than it listens for."""
    environment = {"NOODLE_STATE_DIR": str(state_dir), "RAY_AUTH_TOKEN_PATH": ""}
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        done = CliRunner().invoke(app, ["discover", "--interface", LO, "--timeout", "2", *words], env=environment)
        assert done.exit_code == 0, done.output
        if time.monotonic() > deadline or all(done.stdout.count(word) >= count for word, count in ROWS.items()):
            return done.stdout, done.stderr


ROWS = {ADDRESS: 2, "10.66.6.6:6379": 2, "10.77.0.2:6379": 1, "10.77.0.3:6379": 1}


def test_discover_prints_json(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    listed = json.loads(discover(tmp_path, "--json")[0])
    mine = sorted((one["name"], one["address"], one["standing"]) for one in listed if one["name"].startswith(LAB))
    assert mine == [
        (LAB, "10.66.6.6:6379", "another token"),
        (LAB, ADDRESS, "ours"),
        (FOREIGN, "10.66.6.6:6379", "another token"),
        (OLD, ADDRESS, "too old"),
        (TWINS, "10.77.0.2:6379", "ours"),
        (TWINS, "10.77.0.3:6379", "ours"),
    ]
    assert {tuple(one["versions"]) for one in listed} == {("noodle_ray", "ray", "python")}


def test_discover_without_a_token_believes_nobody(tmp_path: Path) -> None:
    table, said = discover(tmp_path)
    assert all(word in table for word in (LAB, GATEWAY, "another"))
    assert "fits" not in table
    assert "that cannot be read" in said
    assert "there is no token here yet" in said
