"""The main job: placement, modules and fusion on a running noodle-ray cluster, from an ordinary Ray driver script.

    noodle up
    python examples/first_light.py
    ray job submit --working-dir . -- python examples/first_light.py      # the same as a Ray job

Everything it shows is what the cluster answered; the input is real: a photograph, a recorded sentence, a function.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import httpx
import ray

import noodle_ray
from noodle_ray import Cluster, Demand, MultimodalInput
from noodle_ray.entry.cli.cluster import print_nodes, print_totals
from noodle_ray.entry.cli.explaining import print_explanation
from noodle_ray.entry.cli.fusion import print_result
from noodle_ray.entry.cli.output import console
from noodle_ray.entry.demonstration import demonstration_request, recorded_sentence
from noodle_ray.errors import DeadlineExceeded, DoesNotFit, Unavailable

MODULES = Path(__file__).parent / "modules"
TRIES, PAUSE_S = 5, 2.0  # a cluster that was just started is busy: some senses may miss their deadline at first
SENTENCE = "The quick brown fox jumps over the lazy dog, and the dog does not mind the fox."


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--audio", type=Path, help="a recording of speech, where Debian's cannot be fetched")
    options.add_argument("--image", type=Path, help="a picture of your own")
    given = options.parse_args()
    request = demonstration_request(sentence(given.audio), given.image.read_bytes() if given.image else None)
    with noodle_ray.connect() as cluster:
        show_nodes(cluster)
        show_placement(cluster)
        show_modules(cluster)
        show_fusion(cluster, request)
        show_http(cluster, request)


def chapter(title: str) -> None:
    console.print()
    console.rule(f"[bold]{title}", align="left")


def show_nodes(cluster: Cluster) -> None:
    chapter("1  The cluster")
    print_nodes(cluster.nodes())
    print_totals(cluster.resources())


@ray.remote
def where_am_i() -> tuple[str, list[int]]:
    return ray.get_runtime_context().get_node_id(), ray.get_gpu_ids()


def show_placement(cluster: Cluster) -> None:
    chapter("2  Placement: half a GPU, and a demand that cannot fit")
    names = {node.id: node.name for node in cluster.nodes()}
    demand = Demand(cpus=1, gpu_share=0.5, memory="2GiB")
    try:
        with cluster.allocate(demand) as allocation:
            node_id, gpus = ray.get(where_am_i.options(**allocation.options()).remote())
            console.print(
                f"{demand} → {names[allocation.node_id]}; a Ray task in it ran on {names[node_id]}, GPU {gpus}"
            )
            print_explanation(cluster.explain(allocation.id), names)
    except DoesNotFit as refused:
        console.print(f"refused: {refused}", style="yellow", markup=False)
    try:
        cluster.hold(Demand(cpus=2, gpus=8))
    except DoesNotFit as refused:
        console.print(f"refused: {refused}", style="yellow", markup=False)


def show_modules(cluster: Cluster) -> None:
    chapter("3  Modules: publish, resolve, load, call, swap")
    for directory in sorted(path.parent for path in MODULES.glob("*/*/pyproject.toml")):
        published = cluster.modules.publish(directory)
        console.print(
            f"published {published['name']} {published['version']}  sha256 {published['sha256'][:12]}…", highlight=False
        )
    lock = cluster.modules.resolve({"wordcount": "<2"})
    exact = ", then ".join(f"{module['name']} {module['version']}" for module in lock["modules"])
    console.print(f"wordcount<2 resolves to {exact}", highlight=False)
    loaded = cluster.modules.load("wordcount", "<2")
    names = {node.id: node.name for node in cluster.nodes()}
    taken = loaded["milliseconds"]["total"]
    console.print(
        f"loaded wordcount {loaded['version']} on {names[loaded['node_id']]} in {taken:.0f} ms", highlight=False
    )
    console.print(f"  count → {cluster.modules.call('wordcount', 'count', SENTENCE)}", highlight=False)
    swapped = cluster.modules.swap("wordcount")
    taken = swapped["milliseconds"]["total"]
    console.print(f"swapped to wordcount {swapped['version']} in {taken:.0f} ms", highlight=False)
    console.print(f"  count → {cluster.modules.call('wordcount', 'count', SENTENCE)}", highlight=False)
    cluster.modules.unload("wordcount")


def sentence(given: Path | None) -> bytes | None:
    """The given recording, or Debian's; none where that cannot be fetched."""
    if given is not None:
        return given.read_bytes()
    try:
        return recorded_sentence()
    except Unavailable as error:
        console.print(f"going on without speech ({error}); --audio FILE gives some", style="yellow", markup=False)
        return None


def show_fusion(cluster: Cluster, request: MultimodalInput) -> None:
    chapter("4  Fusion: a photograph, a recorded sentence, a text and a function → one answer")
    result = None
    for _ in range(TRIES):
        try:
            result = cluster.fusion.process_multimodal_input(request)
        except DeadlineExceeded as late:
            console.print(f"{late}; asking again", style="dim", markup=False)
            time.sleep(PAUSE_S)
            continue
        if not result.late:
            break
        console.print(f"{', '.join(result.late)} came too late on a machine still busy; asking again", style="dim")
        time.sleep(PAUSE_S)
    if result is not None:
        print_result(result)


def show_http(cluster: Cluster, request: MultimodalInput) -> None:
    chapter("5  The same over HTTP")
    gateway = next(service for service in cluster.services.list("http.api"))
    console.print(f"{gateway.address} (OpenAPI at /docs)", highlight=False)
    body = request.to_json()
    with httpx.Client(base_url=gateway.address, timeout=30) as stranger:
        console.print(
            f"GET /api/distributed/nodes without a token → {stranger.get('/api/distributed/nodes').status_code}"
        )
    headers = {"Authorization": f"Bearer {noodle_ray.read_token()}"}
    with httpx.Client(base_url=gateway.address, headers=headers, timeout=30) as http:
        nodes = http.get("/api/distributed/nodes").raise_for_status().json()
        console.print(f"GET /api/distributed/nodes → {len(nodes)} nodes", highlight=False)
        answer = http.post("/api/ai/fusion", json=body).raise_for_status().json()
        best = answer["candidates"][0]
        console.print(f"POST /api/ai/fusion → {best['candidate']!r}, {best['probability']:.1%}", highlight=False)


if __name__ == "__main__":
    main()
