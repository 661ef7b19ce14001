"""Our actors and Serve applications on a running Ray: which there are, how they are started, wired and ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError

from noodle_ray import __version__
from noodle_ray.actors import names
from noodle_ray.actors.gateway import gateway_application
from noodle_ray.actors.module_catalogue import ModuleCatalogue
from noodle_ray.actors.module_registry import ModuleRegistry
from noodle_ray.actors.node_manager import NodeManager
from noodle_ray.actors.ray_errors import get
from noodle_ray.actors.ray_state import groups, live_nodes, remove_group
from noodle_ray.actors.service_directory import ServiceDirectory
from noodle_ray.entry.cluster.encoders import connect_encoders, start_encoders, stop_encoders
from noodle_ray.errors import Conflict, Unavailable
from noodle_ray.fusion_models.deployments import build_application
from noodle_ray.nodes.membership import GATEWAY_LABEL
from noodle_ray.services.directory import Registration
from noodle_ray.settings import Settings

START_TIMEOUT_S = 120.0
LOOK_S = 0.25
END_S = 30.0
RUNNING = "RUNNING"
OURS = {names.GATEWAY_APP, names.FUSION_APP}

MAY_BE_REPEATED = {"max_task_retries": -1}
"""Options of calls that do no harm if made twice: an actor that dies, as all do with their head, is asked again."""

KINDS: dict[str, Any] = {
    names.NODE_MANAGER: NodeManager,
    names.MODULE_REGISTRY: ModuleRegistry,
    names.SERVICE_DIRECTORY: ServiceDirectory,
}


def start_actors(settings: Settings) -> None:
    """Starts the control actors side by side, or finds those that run; returns when all answer."""
    _start(KINDS, settings)


def start_node_manager(settings: Settings) -> None:
    """Starts what finds, watches and places on nodes, without the rest."""
    _start({names.NODE_MANAGER: NodeManager}, settings)


def _start(kinds: Mapping[str, Any], settings: Settings) -> None:
    actors = [ray.remote(kind).options(**names.on_the_head(name)).remote(settings) for name, kind in kinds.items()]
    for actor in actors:
        get(actor.ping.options(**MAY_BE_REPEATED).remote(), timeout_s=START_TIMEOUT_S)


def start_gateway(settings: Settings, host: str, port: int, read_token: Callable[[], str]) -> None:
    """Starts Serve's HTTP side and the gateway behind it.

    Raises Conflict where others' applications run on this cluster's Serve (its one HTTP side is theirs), and
    Unavailable with what Serve says where it does not start.
    """
    if others := sorted(
        name for name in serve.status().applications if name not in OURS and not name.startswith(names.MODULE_APPS)
    ):
        raise Conflict(f"Ray Serve runs other applications here ({', '.join(others)}), whose HTTP side it cannot share")
    several = settings.gateway_replicas > 1
    labelled = several and any(GATEWAY_LABEL in node.resources.labels for node in live_nodes().values())
    with _clear_failures("the gateway"):
        serve.start(proxy_location="EveryNode" if several else "HeadOnly", http_options={"host": host, "port": port})
        application = gateway_application(settings, read_token, labelled)
        gateway = serve.RunTarget(application, names.GATEWAY_APP, "/")
        # Several wait for hosts that may join later: until then those that can run are enough.
        serve.run_many([gateway], wait_for_applications_running=not several)


def has_gateway() -> bool:
    """Whether Serve knows the gateway, running or on its way back."""
    return names.GATEWAY_APP in serve.status().applications


def wait_for_gateway() -> None:
    """Returns when a replica of it runs. Raises Unavailable with what Serve says where none does in time."""
    _wait_for(names.GATEWAY_APP, "the gateway")


def _wait_for(application: str, what: str) -> None:
    """Returns when each of its deployments has a replica that runs."""
    end = time.monotonic() + START_TIMEOUT_S
    while not _runs(application):
        if time.monotonic() > end:
            raise Unavailable(f"{what} does not run: {'; '.join(_deployments_failures()) or 'Serve says nothing'}")
        time.sleep(LOOK_S)


def _runs(application: str) -> bool:
    found = serve.status().applications.get(application)
    deployments = found.deployments.values() if found is not None else ()
    # By name: Serve's states are strings here, whatever their type says.
    running = [
        any(count for state, count in one.replica_states.items() if str(state) == RUNNING) for one in deployments
    ]
    return bool(running) and all(running)


def start_fusion(settings: Settings, again: bool = False) -> None:
    """Deploys the encoders and the engine, and returns when they serve. Raises Unavailable, CorruptData.

    again: an engine that Serve knows is left to it.
    """
    start_encoders(settings)
    if again and names.FUSION_APP in serve.status().applications:
        return
    application = build_application(settings, connect_encoders, ModuleCatalogue)
    several = settings.fusion_engines > 1
    with _clear_failures("the fusion service"):
        fusion = serve.RunTarget(application, names.FUSION_APP, None)
        # Several wait for hosts that may join later: until then one is enough.
        serve.run_many([fusion], wait_for_applications_running=not several)
    _wait_for(names.FUSION_APP, "the fusion service")


@contextmanager
def _clear_failures(what: str) -> Iterator[None]:
    try:
        yield
    except (RayError, RuntimeError) as error:
        told = "; ".join([_last_line(str(error)) or type(error).__name__, *_deployments_failures()])
        raise Unavailable(f"{what} did not start: {told}") from error


def _deployments_failures() -> list[str]:
    """Why: Serve's own error only names the deployment that failed."""
    applications = serve.status().applications.values()
    deployments = [deployment for one in applications for deployment in one.deployments.values()]
    return [_last_line(one.message) for one in deployments if one.status == "DEPLOY_FAILED" and one.message]


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def register_components(gateway_url: str, fusion: bool = True) -> None:
    """Every component's entry in the service directory."""
    directory = ray.get_actor(names.SERVICE_DIRECTORY, names.NAMESPACE)
    for service in component_services(gateway_url, fusion):
        get(directory.register.options(**MAY_BE_REPEATED).remote(service), timeout_s=START_TIMEOUT_S)


def component_services(gateway_url: str, fusion: bool = True) -> list[Registration]:
    """What this release's components offer, as the directory lists it."""
    offers = {
        names.NODE_MANAGER: (f"actor:{names.NODE_MANAGER}", ("nodes.read", "nodes.cordon", "resources.allocate")),
        names.MODULE_REGISTRY: (f"actor:{names.MODULE_REGISTRY}", ("modules.publish", "modules.load", "modules.call")),
        names.SERVICE_DIRECTORY: (f"actor:{names.SERVICE_DIRECTORY}", ("services.register", "services.find")),
        names.GATEWAY_APP: (gateway_url, ("http.api",)),
    }
    if fusion:
        capabilities = ("fusion.embed", "fusion.choose", "fusion.find", "fusion.classify")
        offers[names.FUSION_APP] = (f"serve:{names.FUSION_APP}", capabilities)
    return [
        Registration(name=name, kind="component", address=address, capabilities=capabilities, version=__version__)
        for name, (address, capabilities) in offers.items()
    ]


def stop_components() -> int:
    """Takes our applications, actors and reservations off the cluster. Gives how many actors ended.

    Raises Unavailable where they do not end.
    """
    stop_encoders()
    modules = [application for application in serve.status().applications if application.startswith(names.MODULE_APPS)]
    with ThreadPoolExecutor() as pool:  # side by side: Serve drains what answers HTTP for half a minute
        list(pool.map(serve.delete, sorted([*OURS, *modules])))
    if not serve.status().applications:
        serve.shutdown()  # type: ignore[no-untyped-call]
    ended = _end_actors()
    # Their names are about to be forgotten: a reservation that stayed could be freed by nobody.
    for group in groups().values():
        remove_group(group.id)
    return ended


def _end_actors() -> int:
    """Those first that start others: what they started while they ended is found by looking again.

    Raises Unavailable where there is no end of them.
    """
    ended = sum(_end(name, names.NAMESPACE) for name in KINDS)
    last_look = time.monotonic() + END_S
    while time.monotonic() < last_look:
        time.sleep(LOOK_S)
        left = [one for one in ray.util.list_named_actors(all_namespaces=True) if names.is_ours(one["namespace"])]
        if not left:
            return ended
        ended += sum(_end(one["name"], one["namespace"]) for one in left)
    raise Unavailable(f"actors of ours keep coming: {', '.join(sorted({one['name'] for one in left}))}")


def _end(name: str, namespace: str) -> bool:
    """Whether it was there."""
    try:
        ray.kill(ray.get_actor(name, namespace), no_restart=True)
    except ValueError:  # so Ray says that there is none
        return False
    return True
