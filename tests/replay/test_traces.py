"""Traces are read from any directory in the openb format, and a fault is named by file, line, field and value."""

import gzip
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noodle_ray.errors import InvalidInput, NotFound
from noodle_ray.replay.traces import Pod, TraceNode, arrivals, find_traces, read_nodes, read_pods

NODES = "sn,cpu_milli,memory_mib,gpu,model\n"
PODS = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["n.csv", "n.csv.gz"])
def test_nodes_are_read_plain_and_gzipped(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, NODES + "a,64000,262144,2,P100\nb,32000,131072,0,\n")
    assert read_nodes(path) == [TraceNode("a", 64000, 262144, 2, "P100"), TraceNode("b", 32000, 131072, 0, "")]


def test_pods_of_every_sort(tmp_path: Path) -> None:
    rows = ["s,6000,12288,1,460,T4|P100|T4", "w,4000,1024,1,1000,", "m,1000,1,8,1000,", "c,2000,65536,0,0,"]
    path = write(tmp_path / "p.csv", PODS + "\n".join(rows))
    assert read_pods(path) == [
        Pod(6000, 12288, 1, 460, frozenset({"T4", "P100"})),
        Pod(4000, 1024, 1, 1000),
        Pod(1000, 1, 8, 1000),
        Pod(2000, 65536),
    ]
    assert [pod.requested_milli for pod in read_pods(path)] == [460, 1000, 8000, 0]


def test_several_gpus_are_whole_ones_and_none_has_no_share(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", PODS + "m,1,1,2,500,\nc,1,1,0,,\n")
    assert [(pod.gpus, pod.gpu_milli) for pod in read_pods(path)] == [(2, 1000), (0, 0)]


def test_columns_in_another_order_more_of_them_or_no_gpu_spec(tmp_path: Path) -> None:
    text = "\ufeffgpu_milli, num_gpu, qos, memory_mib, cpu_milli\r\n500, 1.0, LS, 7, 3000\r\n\r\n"
    assert read_pods(write(tmp_path / "p.csv", text)) == [Pod(3000, 7, 1, 500)]


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ("p,many,1,0,0,", ["line 2, cpu_milli: must be a whole number from 0", "given: many"]),
        ("p,-1,1,0,0,", ["line 2, cpu_milli", "given: -1"]),
        ("p,1.5,1,0,0,", ["line 2, cpu_milli", "given: 1.5"]),
        ("p,nan,1,0,0,", ["line 2, cpu_milli", "given: nan"]),
        ("p,²,1,0,0,", ["line 2, cpu_milli", "given: ²"]),
        (f"p,{'9' * 5000},1,0,0,", ["line 2, cpu_milli", "given: 999"]),
        ("p,1,,0,0,", ["line 2, memory_mib", "given: nothing"]),
        ("p,1", ["line 2, memory_mib", "line 2, num_gpu", "given: nothing"]),
        ("p,1,1,1025,1000,", ["line 2, num_gpu", "from 0 to 1024", "given: 1025"]),
        ("p,1,1,1,1001,", ["line 2, gpu_milli", "from 1 to 1000", "given: 1001"]),
        ("p,1,1,1,0,", ["line 2, gpu_milli", "from 1 to 1000", "given: 0"]),
        ("p,1,1,0,0,,surplus", ["line 2, row", "surplus"]),
        ('p,1,1,0,0,"T4', ["file: must be readable as CSV"]),
        ("", ["rows: at least one"]),
    ],
)
def test_a_malformed_row_is_named(tmp_path: Path, row: str, parts: list[str]) -> None:
    path = write(tmp_path / "p.csv", PODS + row)
    with pytest.raises(InvalidInput) as caught:
        read_pods(path)
    assert [part for part in [str(path), *parts] if part not in str(caught.value)] == []


def test_all_faults_are_listed_but_not_thousands(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as two:
        read_pods(write(tmp_path / "two.csv", PODS + "a,x,1,0,0,\nb,1,1,0,0,\nc,1,y,0,0,\n"))
    assert [fault.field for fault in two.value.faults] == ["line 2, cpu_milli", "line 4, memory_mib"]
    with pytest.raises(InvalidInput) as many:
        read_pods(write(tmp_path / "many.csv", PODS + "a,x,1,0,0,\n" * 5000))
    assert len(many.value.faults) == 10


@pytest.mark.parametrize("text", ["", "cpu_milli,memory_mib,num_gpu\n1,1,1\n", "1,2,3\n"])
def test_a_missing_column_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInput, match=r"line 1: must have the columns cpu_milli.*missing: .*gpu_milli"):
        read_pods(write(tmp_path / "p.csv", text))


@pytest.mark.parametrize(
    "data",
    [b"no gzip at all", gzip.compress((PODS + "p,1,1,0,0,\n" * 50).encode())[:-4], gzip.compress(b"\xff\xfe")],
    ids=["no gzip", "cut off", "no text"],  # what gzip writes has the time in it, and each process its own
)
def test_a_broken_file_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "p.csv.gz"
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match=r"p\.csv\.gz: file: must be readable as CSV"):
        read_pods(path)


def test_nodes_need_names_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"sn: must name one node only \(given: a\)"):
        read_nodes(write(tmp_path / "n.csv", NODES + "a,1,1,1,T4\na,1,1,1,T4\n"))
    with pytest.raises(InvalidInput, match="line 3, sn: must be a name"):
        read_nodes(write(tmp_path / "n.csv", NODES + "a,1,1,1,T4\n,1,1,1,T4\n"))


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"gone\.csv"):
        read_nodes(tmp_path / "gone.csv")


def test_traces_are_found_below_any_directory(tmp_path: Path) -> None:
    nodes = write(tmp_path / "deep" / "my_node_list_42.csv", NODES)
    pods = write(tmp_path / "deep" / "er" / "my_pod_list_new.v2.csv.gz", PODS)
    write(tmp_path / "deep" / "._my_pod_list_new.v2.csv", "left by another system")
    write(tmp_path / "README.md", "pod_list_x")
    found = find_traces(tmp_path)
    assert (found.nodes_file, dict(found.pods)) == (nodes, {"new.v2": pods})


def test_of_several_node_lists_the_one_of_gpu_nodes_counts(tmp_path: Path) -> None:
    write(tmp_path / "pod_list_a.csv", PODS)
    write(tmp_path / "x_node_list_all_node.csv", NODES)
    wanted = write(tmp_path / "x_node_list_gpu_node.csv", NODES)
    assert find_traces(tmp_path).nodes_file == wanted
    wanted.rename(tmp_path / "x_node_list_other.csv")
    with pytest.raises(InvalidInput, match=r"exactly one node list, has 2: .*all_node\.csv, .*other\.csv"):
        find_traces(tmp_path)


def test_what_is_missing_or_there_twice_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="directory of traces"):
        find_traces(tmp_path / "nowhere")
    write(tmp_path / "node_list.csv", NODES)
    with pytest.raises(NotFound, match="pod list"):
        find_traces(tmp_path)
    write(tmp_path / "pod_list_a.csv", PODS)
    write(tmp_path / "pod_list_a.csv.gz", PODS)
    with pytest.raises(InvalidInput, match="exactly one pod list 'a', has 2"):
        find_traces(tmp_path)
    (tmp_path / "pod_list_a.csv").unlink()
    (tmp_path / "node_list.csv").unlink()
    with pytest.raises(NotFound, match="node list"):
        find_traces(tmp_path)


@pytest.mark.parametrize("below", ["", "openb"])
def test_the_public_traces(traces_dir: Path, below: str) -> None:
    found = find_traces(traces_dir / below)
    nodes, pods = read_nodes(found.nodes_file), read_pods(found.pods["default"])
    assert (len(nodes), sum(node.gpus for node in nodes), len(pods), len(found.pods)) == (1213, 6212, 8152, 20)
    assert len(read_pods(found.pods["multigpu50"])) == 9061
    constrained = [pod for pod in read_pods(found.pods["gpuspec33"]) if pod.models]
    assert len(constrained) == 2388


REQUESTS = st.one_of(
    st.builds(Pod, st.just(1), st.just(1), st.just(1), st.integers(1, 1000)),
    st.builds(Pod, st.just(1), st.just(1), st.integers(2, 8), st.just(1000)),
    st.just(Pod(1, 1)),
)


@settings(deadline=None)
@given(st.lists(REQUESTS, min_size=1, max_size=30), st.integers(1, 20), st.integers(0, 2**32))
def test_arrivals_bring_each_pod_once_first_and_end_where_the_level_is_reached(
    pods: list[Pod], gpus: int, seed: int
) -> None:
    pods = [*pods, Pod(1, 1, 1, 500)]
    order = arrivals(pods, gpus * 1000, seed)
    assert order == arrivals(pods, gpus * 1000, seed)
    requested = [pods[index].requested_milli for index in order]
    assert sum(requested) >= gpus * 1300 > sum(requested[:-1])
    first = order[: len(pods)]
    assert len(set(first)) == len(first)
    for until in (0.7, 9.0):
        other = arrivals(pods, gpus * 1000, seed, until)
        assert all(mine == theirs for mine, theirs in zip(order, other, strict=False))


def test_arrivals_are_uniform_and_differ_by_seed() -> None:
    pods = [Pod(1, 1, 1, 1000)] * 10
    order = arrivals(pods, 1_000_000, seed=1, until=10)
    assert len(order) == 10_000
    assert all(850 < times < 1150 for times in Counter(order).values())
    assert order != arrivals(pods, 1_000_000, seed=2, until=10)
    assert order[:10] != sorted(order[:10])


def test_a_level_that_is_met_exactly_ends_the_arrivals() -> None:
    assert 1.1 * 3000 > 3300  # in floating point
    assert len(arrivals([Pod(1, 1, 1, 100)], 3000, seed=0, until=1.1)) == 33


def test_arrivals_that_would_never_end_are_refused() -> None:
    with pytest.raises(InvalidInput, match="pods: at least one must ask for GPU"):
        arrivals([Pod(1, 1)], 1000, seed=0)
    with pytest.raises(InvalidInput, match="pods: at least one must ask for GPU"):
        arrivals([], 1000, seed=0)
    with pytest.raises(InvalidInput, match="nodes: must have at least one GPU"):
        arrivals([Pod(1, 1, 1, 500)], 0, seed=0)
    with pytest.raises(InvalidInput, match="reached within 10000000 arrivals"):
        arrivals([Pod(1, 1, 1, 1)], 10**9, seed=0)
    for until in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidInput, match="until"):
            arrivals([Pod(1, 1, 1, 500)], 1000, seed=0, until=until)
