"""noodle up · down · attach · status · node add · cordon: the cluster as a whole."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from noodle_ray.entry.cli import nodes as nodes_commands
from noodle_ray.entry.cli.nodes import NodeName, find_node, reason_of, state_of
from noodle_ray.entry.cli.output import AsJson, console, print_json, print_table, say
from noodle_ray.entry.cli.wording import age
from noodle_ray.errors import InvalidInput
from noodle_ray.nodes.membership import Node
from noodle_ray.placement.allocation import Allocation
from noodle_ray.resources import NodeResources, format_bytes, from_units
from noodle_ray.settings import read_settings
from noodle_ray.store.health import StoreHealth

Port = Annotated[int, typer.Option(min=0, max=65535, help="0: the usual port where it is free, else any.")]

Host = Annotated[str, typer.Option(help="The address that the gateway listens on; 0.0.0.0: every interface.")]


def add_commands(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(down)
    app.command()(attach)
    app.command()(status)
    app.command()(environment)
    app.command()(cordon)
    app.command()(uncordon)
    node = typer.Typer(help="One node: show it, or add one on this machine.", no_args_is_help=True)
    node.command("add")(add_node)
    nodes_commands.add_commands(app, node)
    app.add_typer(node, name="node")


def up(
    port: Port = 0,
    dashboard_port: Port = 0,
    gateway_port: Port = 0,
    gateway_host: Host = "127.0.0.1",
    cpus: Annotated[int | None, typer.Option(min=0, help="CPUs of the head; default: this machine's.")] = None,
    address: Annotated[
        str, typer.Option(help="Where other hosts reach this one, which may then join; auto: its usual address.")
    ] = "",
    announce: Annotated[
        bool, typer.Option("--announce", help="Tell it on this network, so that `noodle join` there finds it.")
    ] = False,
    fusion: Annotated[bool, typer.Option(help="With the fusion service, whose encoders take memory and time.")] = True,
    json: AsJson = False,
) -> None:
    """Start Ray and noodle-ray on this machine; where a cluster ended here without `down`, go on with that."""
    from noodle_ray.entry.cluster import launch
    from noodle_ray.entry.cluster.own_address import own_address

    settings = read_settings()
    # What is announced must be reached from outside.
    is_found = address == "auto" or (announce and not address)
    reached_at = own_address() if is_found else address or launch.HEAD_ADDRESS
    head = launch.head_options(cpus, reached_at)
    options = launch.UpOptions(port, dashboard_port, gateway_port, gateway_host, head, fusion=fusion, announce=announce)
    cluster = launch.up(settings, options, say)
    if json:
        print_json(cluster)
        return
    if cluster.joined:
        console.print(f"this host is a node of {cluster.address} again", highlight=False)
        return
    console.print(f"noodle-ray runs at [bold]{cluster.address}[/bold]")
    console.print(f"  gateway    {cluster.gateway_url}  (token: {settings.state_dir / 'token'})", highlight=False)
    console.print(f"  dashboard  {cluster.dashboard_url}  (same token)", highlight=False)
    console.print(
        "  Ray's own ports listen on all interfaces and ask for the token. HAProxy's statistics do so without asking:\n"
        f"  ports {' and '.join(map(str, cluster.unguarded_ports))}; close them where this network is not yours alone.",
        highlight=False,
        style="dim",
    )


def down(json: AsJson = False) -> None:
    """End what `up` or `join` started here, or take off what `attach` installed; nothing else."""
    from noodle_ray.entry.cluster import launch

    ended = launch.down(read_settings(), say)
    if json:
        print_json({"ended_processes": ended})
    else:
        console.print(f"ended {ended} processes", highlight=False)


def attach(
    address: Annotated[str, typer.Argument(help="The running Ray's address, HOST:PORT.")],
    gateway_port: Port = 0,
    gateway_host: Host = "127.0.0.1",
    json: AsJson = False,
) -> None:
    """Install noodle-ray onto a Ray that already runs."""
    from noodle_ray.entry.cluster import attaching

    cluster = attaching.attach(read_settings(), address, gateway_host, gateway_port, say)
    if json:
        print_json({"cluster": cluster, "left_to_ray": attaching.LEFT_TO_RAY})
        return
    console.print(f"noodle-ray is installed on {cluster.address}; gateway {cluster.gateway_url}", highlight=False)
    title = "Settings that can only be given where Ray is started"
    print_table(title, ["setting", "what it is good for"], attaching.LEFT_TO_RAY.items())


def status(json: AsJson = False) -> None:
    """Show nodes, resources and allocations."""
    from noodle_ray.entry.client import connect

    with connect() as cluster:
        nodes, totals, allocations = cluster.nodes(), cluster.resources(), cluster.allocations()
        store = cluster.store_health()
    if json:
        print_json({"nodes": nodes, "resources": totals, "allocations": allocations, "store": asdict(store)})
        return
    print_store(store)
    print_nodes(nodes)
    print_totals(totals)
    print_allocations(allocations)


def environment() -> None:
    """Print the variables that Ray must be started with on a host of a noodle-ray cluster, for a shell's eval."""
    from noodle_ray.entry.cluster import launch

    for name, value in launch.host_environment(read_settings()).items():
        sys.stdout.write(f"export {name}={shlex.quote(value)}\n")


def print_store(store: StoreHealth) -> None:
    """Nothing while it answers."""
    if store.away_s is not None:
        text = f"The store has been away for {age(store.away_s)}: what changes waits for it. {store.error}"
        console.print(text, highlight=False, markup=False)


def print_nodes(nodes: list[Node]) -> None:
    rows = [[*_identity(node), *_amounts(node), *_use(node)] for node in nodes]
    print_table("Nodes", ["node", "id", "state", "CPU", "memory", "GPU", "CPU used", "memory used"], rows)
    for node in nodes:
        if why := reason_of(node):
            console.print(f"{node.name} is {state_of(node)}: {why}", highlight=False, markup=False)
    if any(node.pretended for node in nodes):
        console.print("* pretended: declared for a demonstration; this machine has no such GPU", style="dim")


def _identity(node: Node) -> list[str]:
    return [node.name, node.id[:8], state_of(node)]


def _amounts(node: Node) -> list[str]:
    has = node.resources
    gpus = f"{has.gpus} x {has.accelerator_type or 'GPU'}{' *' if node.pretended else ''}" if has.gpus else "-"
    return [f"{from_units(has.cpu_units):g}", format_bytes(has.memory_bytes), gpus]


def _use(node: Node) -> list[str]:
    if node.metrics is None:
        return ["?", "?"]
    return [f"{node.metrics.cpu_used_ratio:.0%}", f"{node.metrics.memory_used_ratio:.0%}"]


def print_totals(totals: dict[str, Any]) -> None:
    rows = [[name, *_amounts_of(name, amounts)] for name, amounts in totals.items() if isinstance(amounts, dict)]
    title = f"Resources ({totals['allocation_ratio']:.1%} of the scarcest allocated)"
    print_table(title, ["", "total", "allocated", "used by others", "free"], rows)


def _amounts_of(name: str, amounts: dict[str, float]) -> list[str]:
    ordered = [amounts[part] for part in ("total", "held", "others", "free")]
    return [format_bytes(int(amount)) if name == "memory_bytes" else f"{amount:g}" for amount in ordered]


def print_allocations(allocations: list[Allocation]) -> None:
    rows = [
        [a.id, a.state, a.node_id[:8], str(a.request), ",".join(map(str, a.gpu_indices)) or "-", a.owner or "-"]
        for a in allocations
    ]
    print_table("Allocations", ["allocation", "state", "node", "demand", "GPU index", "owner"], rows)


def cordon(node: NodeName) -> None:
    """Place nothing new on a node."""
    _set_cordon(node, True)


def uncordon(node: NodeName) -> None:
    """Place new work on a node again; also calls its draining off."""
    _set_cordon(node, False)


def _set_cordon(given: str, cordoned: bool) -> None:
    from noodle_ray.entry.client import connect

    with connect() as cluster:
        node = cluster.cordon(find_node(cluster.nodes(), given).id, cordoned)
    console.print(f"{node.name} ({node.id[:8]}) is {'cordoned' if cordoned else 'open'}", highlight=False)


def add_node(
    cpus: Annotated[int, typer.Option(min=0)] = 1,
    gpus: Annotated[int, typer.Option(min=0)] = 0,
    memory: Annotated[str, typer.Option(help='Such as "8GiB".')] = "1GiB",
    accelerator_type: Annotated[str, typer.Option(help="Such as A100.")] = "",
    name: Annotated[str, typer.Option()] = "",
    pretend: Annotated[bool, typer.Option(help="Declare GPUs that are not there, marked as such.")] = False,
) -> None:
    """Start one more Ray node on this machine, joined to the cluster that `up` started."""
    from noodle_ray.entry.cluster.local_nodes import add_node as add

    if gpus and not pretend:
        raise InvalidInput.of("gpus", "give --pretend to declare GPUs by hand; real ones are found by Ray", gpus)
    resources = NodeResources.of(cpus, memory, gpus, accelerator_type=accelerator_type or None)
    address = add(read_settings(), name, resources, pretend, say)
    console.print(f"node {name or address} runs at {address}", highlight=False)
