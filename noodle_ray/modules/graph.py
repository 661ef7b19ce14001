"""The graph of modules: who needs whom, of the versions that are loaded or else the newest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import networkx

from noodle_ray.base_model import Model
from noodle_ray.modules.manifest import Manifest, read_wanted
from noodle_ray.modules.release import Release

Kind = Literal["module", "feature", "interface"]


class GraphNode(Model):
    """A module: the version that is shown (None where none is published), and whether that one is loaded."""

    name: str
    version: str | None
    loaded: bool = False


class GraphEdge(Model):
    """A module needs another: always, for one of its features, or through an interface. `text` is what it asks for."""

    needing: str
    needed: str
    text: str
    kind: Kind = "module"


class ModuleGraph(Model):
    """Modules by name, and what they need of each other."""

    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...]

    def node(self, name: str) -> GraphNode:
        return next(node for node in self.nodes if node.name == name)

    def needs(self, name: str) -> list[GraphEdge]:
        return [edge for edge in self.edges if edge.needing == name]

    def roots(self) -> list[str]:
        """Modules that nobody needs; of those that need each other in a circle which nobody else needs, the first."""
        groups = self._groups()
        return sorted(min(groups.nodes[group]["members"]) for group in groups if groups.in_degree(group) == 0)

    def layers(self) -> list[list[str]]:
        """The modules so that each stands in a later layer than all that need it; circles stand in one layer."""
        groups = self._groups()
        layers = networkx.topological_generations(groups)
        return [sorted(name for group in layer for name in groups.nodes[group]["members"]) for layer in layers]

    def _groups(self) -> networkx.DiGraph:
        """Modules that need each other in a circle as one."""
        graph = networkx.DiGraph()
        graph.add_nodes_from(node.name for node in self.nodes)
        graph.add_edges_from((edge.needing, edge.needed) for edge in self.edges)
        return networkx.condensation(graph)


def module_graph(releases: Sequence[Release], loaded: Mapping[str, str]) -> ModuleGraph:
    """Of all published modules. `loaded` maps those that run to their versions."""
    shown = _shown(releases, loaded)
    edges = [edge for name in sorted(shown) for edge in _edges(shown[name].manifest, shown)]
    missing = {edge.needed for edge in edges} - shown.keys()
    nodes = [
        GraphNode(name=name, version=release.manifest.version, loaded=loaded.get(name) == release.manifest.version)
        for name, release in shown.items()
    ]
    nodes += [GraphNode(name=name, version=None) for name in missing]
    return ModuleGraph(nodes=tuple(sorted(nodes, key=lambda node: node.name)), edges=tuple(edges))


def _shown(releases: Sequence[Release], loaded: Mapping[str, str]) -> dict[str, Release]:
    """Of each module the loaded version, else the newest that may be chosen, else the newest."""
    shown: dict[str, Release] = {}

    def rank(release: Release) -> tuple[bool, bool, object]:
        return loaded.get(release.name) == release.manifest.version, not release.yanked, release.version

    for release in releases:
        if release.name not in shown or rank(release) > rank(shown[release.name]):
            shown[release.name] = release
    return shown


def _edges(manifest: Manifest, shown: Mapping[str, Release]) -> list[GraphEdge]:
    edges = [_edge(manifest.name, wanted, text, "module") for wanted, text in sorted(manifest.requires.items())]
    for _, requires in sorted(manifest.features.items()):
        edges += [_edge(manifest.name, wanted, text, "feature") for wanted, text in sorted(requires.items())]
    for interface, constraint in sorted(manifest.interfaces.items()):
        text = f"{interface} {constraint}".strip()
        providers = [name for name in sorted(shown) if interface in shown[name].manifest.provides]
        edges += [GraphEdge(needing=manifest.name, needed=name, text=text, kind="interface") for name in providers]
    return edges


def _edge(needing: str, wanted: str, text: str, kind: Kind) -> GraphEdge:
    name, feature = read_wanted(wanted)
    return GraphEdge(needing=needing, needed=name, text=f"[{feature}] {text}".strip() if feature else text, kind=kind)
