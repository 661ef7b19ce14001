"""The graph of modules as a tree on the terminal and as an SVG picture."""

from __future__ import annotations

from xml.sax.saxutils import escape

from rich.text import Text
from rich.tree import Tree

from noodle_ray.modules.graph import GraphEdge, GraphNode, ModuleGraph

BOX_WIDTH, BOX_HEIGHT, ACROSS, DOWN, MARGIN = 170, 44, 290, 74, 24
DASHES = {"module": "", "feature": "6 4", "interface": "2 4"}


def tree(graph: ModuleGraph) -> Tree:
    """Modules that nobody needs, below each what it needs; what was shown above is not unfolded again."""
    top = Tree(Text("modules" if graph.nodes else "no modules are published"), guide_style="dim")
    unfolded: set[str] = set()
    for name in graph.roots():
        _grow(top, graph, name, "", unfolded)
    return top


def _grow(parent: Tree, graph: ModuleGraph, name: str, label: str, unfolded: set[str]) -> None:
    node = graph.node(name)
    text = Text(f"{name} {node.version or '(not published)'}", style="" if node.version else "red")
    text.append(" loaded" if node.loaded else "", style="green")
    text.append(f"  {label}" if label else "", style="dim")
    again = name in unfolded and graph.needs(name)
    text.append("  (see above)" if again else "", style="dim")
    branch = parent.add(text)
    if again:
        return
    unfolded.add(name)
    for edge in graph.needs(name):
        _grow(branch, graph, edge.needed, _label(edge), unfolded)


def _label(edge: GraphEdge) -> str:
    kinds = {"module": "", "feature": "for a feature: ", "interface": "as "}
    return f"{kinds[edge.kind]}{edge.text or 'any version'}"


def svg(graph: ModuleGraph) -> str:
    """Boxes in columns, what is needed to the right of what needs it; a loaded version's box is filled."""
    places = {
        name: (MARGIN + column * ACROSS, MARGIN + row * DOWN)
        for column, names in enumerate(graph.layers())
        for row, name in enumerate(names)
    }
    width = max((x for x, _ in places.values()), default=0) + BOX_WIDTH + MARGIN
    height = max((y for _, y in places.values()), default=0) + BOX_HEIGHT + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="system-ui, sans-serif" font-size="13">',
        '<defs><marker id="end" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#667"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        *(_line(edge, places[edge.needing], places[edge.needed]) for edge in graph.edges),
        *(_box(node, *places[node.name]) for node in graph.nodes),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _line(edge: GraphEdge, start: tuple[int, int], end: tuple[int, int]) -> str:
    x, y = start[0] + BOX_WIDTH, start[1] + BOX_HEIGHT // 2
    to_x, to_y = end[0], end[1] + BOX_HEIGHT // 2
    half = (x + to_x) // 2
    dashes = f' stroke-dasharray="{DASHES[edge.kind]}"' if DASHES[edge.kind] else ""
    # The label stands at the needed end, where lines from one box have parted.
    label = (
        f'<text x="{to_x - 8}" y="{to_y - 6}" text-anchor="end" fill="#667" font-size="11">{escape(edge.text)}</text>'
    )
    path = f'<path d="M{x} {y}C{half} {y} {half} {to_y} {to_x} {to_y}" fill="none" stroke="#667"{dashes}'
    return f'{path} marker-end="url(#end)"/>{label}'


def _box(node: GraphNode, x: int, y: int) -> str:
    fill = "#d9f2e3" if node.loaded else "#f4f5f7" if node.version else "#fbe3e3"
    version = f"{node.version}, loaded" if node.loaded else node.version or "not published"
    return (
        f'<rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6" fill="{fill}" stroke="#99a"/>'
        f'<text x="{x + 12}" y="{y + 19}" fill="#112" font-weight="600">{escape(node.name)}</text>'
        f'<text x="{x + 12}" y="{y + 35}" fill="#556" font-size="12">{escape(version)}</text>'
    )
