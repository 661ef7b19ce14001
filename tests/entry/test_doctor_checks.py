"""noodle doctor's checks, each in made-up surroundings."""

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.entry.cluster.cluster_file import ClusterFile, StartedProcess
from noodle_ray.entry.doctor import clocks, disk, leftovers, machine, packages, ports, running_cluster
from noodle_ray.entry.doctor.finding import Finding, failed, ok, warn
from noodle_ray.entry.doctor.leftovers import Running
from noodle_ray.entry.doctor.running_cluster import Answer
from noodle_ray.entry.doctor.token_file import check_token
from noodle_ray.entry.doctor.weights import check_weights

GIB = 2**30


def test_only_a_failure_is_one() -> None:
    assert not failed([ok("a", "b"), warn("a", "b", "c")])
    assert failed([ok("a", "b"), Finding(name="a", state="fail", found="b")])


class TestPackages:
    INSTALLED = {"ray": "2.60.0", "torch": "2.13.0+cpu", "rich": "16.0"}  # noqa: RUF012

    def version(self, name: str) -> str:
        if name not in self.INSTALLED:
            raise metadata.PackageNotFoundError(name)
        return self.INSTALLED[name]

    def test_as_required(self) -> None:
        wanted = ["ray[default,serve]>=2.60,<2.61", "torch==2.13.0", 'nothing>=1; extra == "bench"']
        found = packages.check_packages(wanted, self.version)
        assert (found.state, found.found) == ("ok", "all 2 as required: ray 2.60.0, torch 2.13.0+cpu")

    def test_too_new_and_missing_ones_are_named(self) -> None:
        found = packages.check_packages(["rich<16,>=15", "numba", "ray"], self.version)
        assert (found.state, found.found) == ("fail", "rich 16.0, not <16,>=15; numba is not installed")
        assert "make setup" in found.advice

    @pytest.mark.parametrize(("version", "state"), [("3.10.14", "fail"), ("3.11.0", "ok"), ("3.12.1", "ok")])
    def test_python(self, version: str, state: str) -> None:
        assert packages.check_python(">=3.11", version).state == state

    def test_here(self) -> None:
        assert [one.name for one in packages.check_installed()] == ["python", "packages"]


class TestPorts:
    @pytest.fixture
    def taken(self) -> Iterator[int]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            yield listener.getsockname()[1]

    def test_a_taken_one_is_told_with_its_holder(self, taken: int) -> None:
        found = ports.check_free("gateway", "127.0.0.1", taken)
        assert found.state == "warn"
        assert f"process {os.getpid()}" in found.found
        assert "another port" in found.advice

    def test_a_free_one(self, taken: int) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            free = probe.getsockname()[1]
        assert ports.check_free("gateway", "127.0.0.1", free).state == "ok"

    def test_those_of_a_running_cluster_are_to_be_held(self, taken: int) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            port = silent.getsockname()[1]
            cluster = ClusterFile(
                address=f"127.0.0.1:{taken}", dashboard_url="", gateway_url=f"http://127.0.0.1:{port}"
            )
            ray, gateway = ports.check_ports(cluster)
        assert (ray.name, ray.state) == (f"port {taken}", "ok")
        assert (gateway.name, gateway.state) == (f"port {port}", "fail")
        assert gateway.found == "gateway does not listen at 127.0.0.1: Connection refused"

    def test_without_a_cluster_the_usual_ones_are_looked_at(self) -> None:
        assert [one.name for one in ports.check_ports(None)] == ["port 6379", "port 8265", "port 8000"]


class TestToken:
    SECRET = "a-secret-that-nobody-may-see"

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "token"
        path.write_text(self.SECRET)
        path.chmod(0o600)
        return path

    def test_as_it_should_be(self, path: Path) -> None:
        found = check_token(path, needed=True)
        assert (found.state, found.found) == ("ok", f"{path}, 28 characters, mode 0600")

    def test_others_may_read_it(self, path: Path) -> None:
        path.chmod(0o644)
        found = check_token(path, needed=False)
        assert (found.state, found.advice) == ("fail", f"chmod 600 {path}")

    def test_it_is_anothers(self, path: Path) -> None:
        found = check_token(path, needed=False, user=os.geteuid() + 1)
        assert found.state == "fail" and "belongs to user" in found.found

    @pytest.mark.parametrize("content", [b"", b"short  \n", b"\xff" * 40])
    def test_it_is_none(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        assert check_token(path, needed=False).state == "fail"

    def test_it_is_a_folder(self, tmp_path: Path) -> None:
        assert check_token(tmp_path, needed=False).found == f"{tmp_path} is no file"

    @pytest.mark.parametrize(("needed", "state"), [(True, "fail"), (False, "skipped")])
    def test_it_is_missing(self, tmp_path: Path, needed: bool, state: str) -> None:
        assert check_token(tmp_path / "token", needed).state == state

    def test_a_file_is_in_the_way(self, path: Path) -> None:
        assert check_token(path / "token", needed=False).state == "fail"

    def test_it_is_never_shown(self, path: Path) -> None:
        for mode in (0o600, 0o644):
            path.chmod(mode)
            assert self.SECRET not in check_token(path, needed=True).model_dump_json()


class TestClocks:
    @given(
        ahead_s=st.floats(-1e4, 1e4),
        asked_at=st.floats(1e9, 2e9),
        there_s=st.floats(0, 5),
        back_s=st.floats(0, 5),
    )
    def test_the_true_offset_is_within_what_a_date_tells(
        self, ahead_s: float, asked_at: float, there_s: float, back_s: float
    ) -> None:
        date = float(int(asked_at + there_s + ahead_s))
        offset = clocks.offset_of_date(asked_at, asked_at + there_s + back_s, date)
        assert offset.least - 1e-3 <= ahead_s <= offset.most + 1e-3
        assert abs(offset.certain_s) <= abs(ahead_s) + 1e-3

    @pytest.mark.parametrize(
        ("date", "state"), [(100.0, "ok"), (99.0, "ok"), (102.0, "warn"), (97.0, "warn"), (98.0, "ok")]
    )
    def test_the_gateways(self, date: float, state: str) -> None:
        found = clocks.check_clock("clock", clocks.offset_of_date(100.0, 100.5, date))
        assert found.state == state

    def test_it_says_which_way(self) -> None:
        assert "60.0 s or more ahead of" in clocks.check_clock("clock", clocks.Offset(60.0, 62.0)).found
        assert "3.0 s or more behind" in clocks.check_clock("clock", clocks.Offset(-5.0, -3.0)).found
        assert clocks.check_clock("clock", None, "nobody there").found == "nobody there"

    def test_nodes(self) -> None:
        """A report may be old, but not from the future."""
        fresh = ("a", clocks.offset_of_report(taken_at=95.0, heard_at=100.0, longest_age_s=30.0))
        future = ("b", clocks.offset_of_report(taken_at=104.0, heard_at=100.0, longest_age_s=30.0))
        behind = ("c", clocks.offset_of_report(taken_at=10.0, heard_at=100.0, longest_age_s=30.0))
        assert clocks.check_node_clocks("n", [fresh]).state == "ok"
        found = clocks.check_node_clocks("n", [fresh, future, behind])
        assert (found.state, found.found) == ("warn", "b is off by +4.0 s or more, c is off by -60.0 s or more")
        assert clocks.check_node_clocks("n", []).state == "skipped"


class TestDisk:
    @pytest.mark.parametrize(
        ("free", "total", "inodes", "state"),
        [
            (100 * GIB, 200 * GIB, 10**6, "ok"),
            (100 * GIB, 200 * GIB, None, "ok"),
            (GIB, 200 * GIB, 10**6, "warn"),
            (3 * GIB, 200 * GIB, 10**6, "warn"),
            (100 * GIB, 200 * GIB, 5_000, "warn"),
            (100 * GIB, 200 * GIB, 10, "fail"),
            (2**20, 200 * GIB, 10**6, "fail"),
        ],
    )
    def test_space(self, free: int, total: int, inodes: int | None, state: str) -> None:
        found = disk.judge_space("disk", Path("/x"), disk.Space(free, total, inodes))
        assert found.state == state
        assert bool(found.advice) == (state != "ok")

    def test_a_folder_that_is_yet_to_be_made(self, tmp_path: Path) -> None:
        assert disk.check_disk("disk", tmp_path / "a" / "b").found.startswith(str(tmp_path / "a" / "b"))
        assert not (tmp_path / "a").exists()

    def test_a_file_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert disk.check_disk("disk", tmp_path / "file" / "deeper").found == f"{tmp_path / 'file'} is no folder"

    def test_no_right_to_write(self) -> None:
        assert disk.check_disk("disk", Path("/proc/noodle")).state == "fail"


class TestMachine:
    @pytest.mark.parametrize(
        ("available", "limit", "state"),
        [(20, None, "ok"), (5, None, "warn"), (1, None, "fail"), (20, 4, "warn"), (20, 1, "fail"), (20, 64, "ok")],
    )
    def test_memory(self, available: int, limit: int | None, state: str) -> None:
        limit_bytes = None if limit is None else limit * GIB
        assert machine.check_memory(available * GIB, 32 * GIB, limit_bytes).state == state

    @pytest.mark.parametrize(("text", "limit"), [("max\n", None), ("1073741824\n", GIB), ("", None)])
    def test_a_containers_limit(self, tmp_path: Path, text: str, limit: int | None) -> None:
        (tmp_path / "memory.max").write_text(text)
        assert machine.container_limit(tmp_path / "memory.max") == limit
        assert machine.container_limit(tmp_path / "nothing") is None

    @pytest.mark.parametrize(("free", "state"), [(None, "warn"), (64 * 2**20, "warn"), (GIB, "ok")])
    def test_shared_memory(self, free: int | None, state: str) -> None:
        assert machine.check_shared_memory(free).state == state

    @pytest.mark.parametrize(
        ("soft", "hard", "state"), [(1024, 1_048_576, "warn"), (65_536, 65_536, "ok"), (256, 512, "fail")]
    )
    def test_open_files(self, soft: int, hard: int, state: str) -> None:
        assert machine.check_open_files(soft, hard).state == state

    def test_pidfd(self) -> None:
        def refuse(pid: int) -> int:
            raise OSError(errno.ENOSYS, "Function not implemented")

        assert machine.check_pidfd(refuse).state == "warn"
        assert machine.check_pidfd(lambda pid: os.open("/dev/null", os.O_RDONLY)).state == "ok"

    def test_overlay(self, tmp_path: Path) -> None:
        listed = tmp_path / "filesystems"
        listed.write_text("nodev\tsysfs\n\text4\n")
        assert machine.check_overlay(listed).state == "skipped"
        listed.write_text("nodev\tsysfs\nnodev\toverlay\n")
        assert machine.check_overlay(listed).state == "ok"
        assert machine.check_overlay(tmp_path / "nothing").state == "skipped"

    def test_namespaces(self, tmp_path: Path) -> None:
        assert machine.check_namespaces(tmp_path, user=0).found == "no net, pid, mnt namespaces"
        for kind in ("net", "pid", "mnt"):
            (tmp_path / kind).touch()
        assert machine.check_namespaces(tmp_path, user=0).state == "ok"
        assert machine.check_namespaces(tmp_path, user=1000).state == "skipped"

    @pytest.mark.parametrize(("text", "state"), [("0\n", "skipped"), ("1\n", "ok"), (None, "skipped")])
    def test_lost_packets(self, tmp_path: Path, text: str | None, state: str) -> None:
        setting = tmp_path / "tcp_thin_linear_timeouts"
        if text is not None:
            setting.write_text(text)
        found = machine.check_lossy_network(setting)
        assert found.state == state
        assert ("sysctl -w net.ipv4.tcp_thin_linear_timeouts=1" in found.advice) == (text == "0\n")


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    found = check_weights("base", tmp_path)
    assert (found.state, found.advice) == ("fail", "`noodle models fetch`")
    assert check_weights("other", tmp_path).state == "fail"


class TestCluster:
    def cluster(self, *processes: StartedProcess, attached: bool = False) -> ClusterFile:
        return ClusterFile(
            address="127.0.0.2:1", dashboard_url="", gateway_url="", processes=processes, attached=attached
        )

    def test_processes(self) -> None:
        alive = StartedProcess.of(os.getpid(), "head", "127.0.0.2")
        dead = alive.model_copy(update={"role": "worker", "started_at": 0.0})
        assert running_cluster.check_processes(None).state == "skipped"
        assert running_cluster.check_processes(self.cluster(alive)).state == "ok"
        assert running_cluster.check_processes(self.cluster(attached=True)).state == "ok"
        found = running_cluster.check_processes(self.cluster(alive, dead))
        assert (found.state, found.found) == ("fail", "at 127.0.0.2:1: worker 127.0.0.2 ended")

    def test_a_gateway_that_is_away(self) -> None:
        health = running_cluster.ask_gateway("http://127.0.0.1:1/healthz")
        assert health.offset is None
        found = running_cluster.check_gateway("http://127.0.0.1:1", health, health)
        assert found.state == "fail" and "ConnectError" in found.found

    @pytest.mark.parametrize(("health", "nodes", "state"), [(200, 200, "ok"), (503, 200, "fail"), (200, 401, "fail")])
    def test_what_a_gateway_says(self, health: int, nodes: int, state: str) -> None:
        assert running_cluster.check_gateway("u", Answer(status=health), Answer(status=nodes)).state == state

    def test_a_date_gives_an_offset(self) -> None:
        answer = Answer(200, 0.0, 0.5, "Thu, 01 Jan 1970 00:01:00 GMT")
        assert answer.offset == clocks.Offset(59.5, 61.0)

    def test_an_answer_carries_its_times(self, monkeypatch: pytest.MonkeyPatch) -> None:
        said = httpx.Response(200, json=[], headers={"date": "now"})
        monkeypatch.setattr(httpx, "get", lambda url, **options: said)
        ticks = iter([1.0, 2.0])
        answer = running_cluster.ask_gateway("u", "t", lambda: next(ticks))
        assert (answer.asked_at, answer.heard_at, answer.body, answer.offset) == (1.0, 2.0, [], None)

    def test_reports_of_living_nodes_are_compared(self) -> None:
        def node(name: str, state: str, taken_at: float | None) -> dict[str, object]:
            metrics = None if taken_at is None else {"taken_at": taken_at}
            return {"name": name, "state": state, "heard_at": 100.0, "metrics": metrics}

        nodes = [node("a", "alive", 90.0), node("b", "dead", 1.0), node("c", "alive", None)]
        offsets = running_cluster.node_offsets(Answer(status=200, body=nodes), longest_age_s=30.0)
        assert offsets == [("a", clocks.Offset(-10.0, 20.0))]
        assert running_cluster.node_offsets(Answer(status=401, body={"error": {}}), 30.0) == []


class TestLeftovers:
    def check(self, *running: Running, alive: tuple[int, ...] = (), dead: tuple[int, ...] = ()) -> Finding:
        return leftovers.check_leftovers(running, alive, dead)

    def test_those_of_a_killed_head(self) -> None:
        raylet = Running(pid=12, session=10, name="raylet", ours=True)
        worker = Running(pid=13, session=10, name="ray::IDLE", ours=False)
        other = Running(pid=22, session=20, name="raylet", ours=False)
        found = self.check(raylet, worker, other)
        assert (found.state, found.advice) == ("warn", "`noodle down`, or kill 12 13")

    def test_those_in_a_recorded_session(self) -> None:
        worker = Running(pid=13, session=10, name="ray::IDLE", ours=False)
        assert self.check(worker).state == "ok"
        assert self.check(worker, dead=(10,)).state == "warn"

    def test_the_running_clusters_are_none(self) -> None:
        head = Running(pid=10, session=10, name="ray", ours=True)
        raylet = Running(pid=12, session=10, name="raylet", ours=True)
        assert self.check(head, raylet, alive=(10,)).state == "ok"
        assert self.check(head, raylet).state == "warn"

    def test_a_drivers_child_is_none(self) -> None:
        shell = Running(pid=10, session=10, name="bash", ours=False)
        child = Running(pid=12, session=10, name="python", ours=True)
        assert self.check(shell, child).state == "ok"

    def test_sessions_are_known_from_the_cluster_file(self) -> None:
        alive = StartedProcess.of(os.getpid(), "head", "127.0.0.2")
        reused = alive.model_copy(update={"started_at": 0.0})
        gone = alive.model_copy(update={"pid": 2**22 + 1})
        url = {"address": "a", "dashboard_url": "", "gateway_url": ""}
        assert leftovers.recorded_sessions(ClusterFile(**url, processes=(alive, gone))) == ([alive.pid], [gone.pid])
        assert leftovers.recorded_sessions(ClusterFile(**url, processes=(reused,))) == ([], [])
        assert leftovers.recorded_sessions(None) == ([], [])

    def test_a_process_is_known_by_what_it_was_started_with(self, tmp_path: Path) -> None:
        waits = "import sys; print(flush=True); sys.stdin.read()"
        begun = [
            subprocess.Popen(
                [sys.executable, "-c", waits, *words],
                env={**os.environ, **more},
                start_new_session=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for words, more in (([], {"RAY_TMPDIR": str(tmp_path)}), ([f"--x={tmp_path}/2"], {}), ([], {}))
        ]
        for process in begun:
            assert process.stdout is not None
            process.stdout.readline()
        known = {one.pid: one.ours for one in leftovers.processes(tmp_path)}
        found = leftovers.check_leftovers(leftovers.processes(tmp_path), alive=(), dead=())
        for process in begun:
            process.communicate()
        assert [known[process.pid] for process in begun] == [True, True, False]
        assert known[os.getpid()] is False
        assert str(begun[0].pid) in found.advice and str(begun[2].pid) not in found.advice


def test_ray_that_is_not_there(tmp_path: Path) -> None:
    for address in ("127.0.0.1:1", "nowhere", "127.0.0.1:"):
        assert running_cluster.check_ray(address, tmp_path / "token").state == "fail"
