"""The graph of modules: what is shown of each, who needs whom, and in which order they stand."""

from __future__ import annotations

from typing import Any

from noodle_ray.modules.graph import GraphEdge, GraphNode, ModuleGraph, module_graph
from noodle_ray.modules.manifest import Manifest
from noodle_ray.modules.release import Release


def release(name: str, version: str, yanked: bool = False, **fields: Any) -> Release:
    manifest = Manifest(name=name, version=version, entry_point="file", **fields)
    return Release(manifest=manifest, sha256="0" * 64, size_bytes=1, published_at=0, yanked=yanked)


def graph_of(*releases: Release, **loaded: str) -> ModuleGraph:
    return module_graph(releases, loaded)


def test_the_loaded_version_is_shown_or_else_the_newest_that_may_be_chosen() -> None:
    releases = [release("a", "1"), release("a", "3", yanked=True), release("a", "2"), release("b", "1", yanked=True)]
    assert graph_of(*releases).nodes == (GraphNode(name="a", version="2"), GraphNode(name="b", version="1"))
    assert graph_of(*releases, a="1").node("a") == GraphNode(name="a", version="1", loaded=True)


def test_needs_features_and_interfaces_are_edges() -> None:
    graph = graph_of(
        release("a", "1", requires={"b": ">=1", "c[fast]": ""}, features={"extra": {"d": "<2"}}),
        release("e", "1", interfaces={"embedder": ">=1"}),
        release("b", "1", provides={"embedder": "1.0"}),
    )
    assert graph.edges == (
        GraphEdge(needing="a", needed="b", text=">=1"),
        GraphEdge(needing="a", needed="c", text="[fast]"),
        GraphEdge(needing="a", needed="d", text="<2", kind="feature"),
        GraphEdge(needing="e", needed="b", text="embedder >=1", kind="interface"),
    )
    assert [node.name for node in graph.nodes if node.version is None] == ["c", "d"]


def test_layers_lead_from_those_that_nobody_needs_to_those_that_need_nobody() -> None:
    graph = graph_of(
        release("app", "1", requires={"left": "", "right": ""}),
        release("left", "1", requires={"base": ""}),
        release("right", "1", requires={"left": ""}),
        release("base", "1"),
    )
    assert graph.layers() == [["app"], ["right"], ["left"], ["base"]]
    assert graph.roots() == ["app"]


def test_a_circle_stands_in_one_layer_and_begins_with_its_first() -> None:
    graph = graph_of(
        release("x", "1", requires={"y": ""}), release("y", "1", requires={"x": "", "z": ""}), release("z", "1")
    )
    assert graph.layers() == [["x", "y"], ["z"]]
    assert graph.roots() == ["x"]
