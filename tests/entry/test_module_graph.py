"""What a person sees of the graph of modules: a tree on the terminal, a picture."""

from __future__ import annotations

from xml.etree import ElementTree

from rich.console import Console

from noodle_ray.entry.cli.module_graph import svg, tree
from noodle_ray.modules.graph import GraphEdge, GraphNode, ModuleGraph

GRAPH = ModuleGraph(
    nodes=(
        GraphNode(name="app", version="1.0"),
        GraphNode(name="base", version="3.1", loaded=True),
        GraphNode(name="left", version="2.0"),
        GraphNode(name="right", version=None),
    ),
    edges=(
        GraphEdge(needing="app", needed="left", text=">=2,<3"),
        GraphEdge(needing="app", needed="right", text="", kind="feature"),
        GraphEdge(needing="left", needed="base", text="embedder >=1", kind="interface"),
        GraphEdge(needing="right", needed="left", text=""),
    ),
)


def shown(graph: ModuleGraph) -> list[str]:
    console = Console(width=100, record=True, file=None, no_color=True)
    with console.capture() as captured:
        console.print(tree(graph))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_the_tree_unfolds_each_module_once() -> None:
    assert shown(GRAPH) == [
        "modules",
        "└── app 1.0",
        "    ├── left 2.0  >=2,<3",
        "    │   └── base 3.1 loaded  as embedder >=1",
        "    └── right (not published)  for a feature: any version",
        "        └── left 2.0  any version  (see above)",
    ]


def test_without_modules_it_says_so() -> None:
    assert shown(ModuleGraph(nodes=(), edges=())) == ["no modules are published"]


def test_the_picture_is_svg_with_every_module_and_constraint() -> None:
    root = ElementTree.fromstring(svg(GRAPH))
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"app", "base", "3.1, loaded", "not published", ">=2,<3", "embedder >=1"} <= texts
    assert svg(ModuleGraph(nodes=(), edges=())).startswith("<svg")
