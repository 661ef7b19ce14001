"""Signatures: what a module's entry point offers, read from its source without running any of it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Literal

from noodle_ray.base_model import Model

Kind = Literal["positional", "either", "keyword", "rest", "keywords"]
"""How an argument is given: by position only, either way, by name only; or all further ones of either way."""

_HARMLESS = {
    "staticmethod",
    "classmethod",
    "override",
    "typing.override",
    "abstractmethod",
    "abc.abstractmethod",
    "dataclass",
}
_PROPERTIES = {"property", "cached_property", "functools.cached_property"}
_NO_FUNCTIONS = ast.Constant | ast.List | ast.Tuple | ast.Dict | ast.Set | ast.JoinedStr | ast.BinOp | ast.UnaryOp
_STREAMS = {"Iterator", "Iterable", "Generator", "AsyncIterator", "AsyncIterable", "AsyncGenerator"}


class Parameter(Model):
    """One parameter of a function. `annotation` is its type as written, "" without one."""

    name: str
    kind: Kind
    required: bool = False
    annotation: str = ""

    def text(self) -> str:
        stars = {"rest": "*", "keywords": "**"}.get(self.kind, "")
        typed = f": {self.annotation}" if self.annotation else ""
        default = "" if self.required or stars else " = …" if typed else "=…"
        return f"{stars}{self.name}{typed}{default}"


class Function(Model):
    """A public function. `parameters` are None where a decorator may have changed them.

    `certain`: it is one. Else it is a name that may be given to one as the code runs.
    """

    name: str
    parameters: tuple[Parameter, ...] | None
    returns: str = ""
    streams: bool = False
    certain: bool = True

    def text(self) -> str:
        """The signature, for people; defaults are written as "…"."""
        returns = f" → {self.returns}" if self.returns else ""
        if self.parameters is None:
            return f"{self.name}(?){returns}"
        parts: list[str] = []
        kinds: list[Kind] = [parameter.kind for parameter in self.parameters]
        for place, parameter in enumerate(self.parameters):
            if parameter.kind == "keyword" and not {"keyword", "rest"} & set(kinds[:place]):
                parts.append("*")
            parts.append(parameter.text())
            if parameter.kind == "positional" and "positional" not in kinds[place + 1 :]:
                parts.append("/")
        return f"{self.name}({', '.join(parts)}){returns}"


def read_functions(entries: Mapping[str, bytes], entry_point: str) -> tuple[Function, ...] | None:
    """The public functions of an entry point ("package.file:Class" or "package.file"), by name.

    `entries` are the module's files. None where only running it would tell: a class with bases from elsewhere or that
    is changed as it is made, an `__all__` with names from elsewhere, source that cannot be parsed.
    """
    file, _, class_name = entry_point.partition(":")
    body = _body(entries, file)
    if body is None:
        return None
    found = _methods(body, class_name) if class_name else _module_functions(body)
    return None if found is None else tuple(sorted(found, key=lambda function: function.name))


def read_names(entries: Mapping[str, bytes], entry_point: str) -> set[str] | None:
    """Every name in an entry point's code: what is not among them it has not. None where only running it would tell."""
    file, _, class_name = entry_point.partition(":")
    body: Sequence[ast.AST | None] | None = _body(entries, file)
    if body is not None and class_name:
        classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
        body = list(_lineage(classes, class_name))
        if any(isinstance(one, ast.ClassDef) and (one.keywords or one.decorator_list) for one in body):
            return None
    if body is None or None in body:
        return None
    names = {name for node in body if node is not None for inner in ast.walk(node) for name in _named(inner)}
    return None if names & {"*", "__getattr__", "globals", "setattr", "exec"} else names


def _named(node: ast.AST) -> Iterator[str]:
    """The names that a node gives to something, or uses."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.alias):
        yield (node.asname or node.name).partition(".")[0]
    elif isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Attribute):
        yield node.attr


def _body(entries: Mapping[str, bytes], file: str) -> list[ast.stmt] | None:
    """The statements of a file, none where there is no such file; None where they cannot be parsed."""
    source = source_of(entries, file)
    try:
        return ast.parse(source).body if source is not None else []
    except (SyntaxError, ValueError, RecursionError):
        return None


def source_of(entries: Mapping[str, bytes], file: str) -> bytes | None:
    """The file of a dotted name."""
    path = file.replace(".", "/")
    for name in (f"{path}.py", f"{path}/__init__.py"):
        if name in entries:
            return entries[name]
    return None


def _module_functions(body: list[ast.stmt]) -> list[Function] | None:
    defined = {node.name: node for node in _definitions(body)}
    listed = _listed(body)
    if listed is None:
        found = {name: _function(node, bound=False) for name, node in defined.items()}
        return _public({**found, **_possible(body)})
    if not set(listed) <= defined.keys():
        return None  # some come from elsewhere
    return [_function(defined[name], bound=False) for name in listed]


def _listed(body: list[ast.stmt]) -> list[str] | None:
    """What __all__ says, where it is a plain list."""
    for node in body:
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets):
            value = ast.literal_eval(node.value) if _is_literal(node.value) else []
            return [name for name in value if isinstance(name, str)]
    return None


def _is_literal(node: ast.expr) -> bool:
    return isinstance(node, ast.List | ast.Tuple) and all(isinstance(item, ast.Constant) for item in node.elts)


def _methods(body: list[ast.stmt], class_name: str) -> list[Function] | None:
    classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
    methods: dict[str, Function] = {}
    for one in _lineage(classes, class_name):
        if one is None or one.keywords or not _decorators(one) <= _HARMLESS:
            return None
        own = {
            node.name: _function(node, bound="staticmethod" not in _decorators(node))
            for node in _definitions(one.body)
            if not _decorators(node) & _PROPERTIES
        }
        methods = {**own, **_possible(one.body), **methods}
    return _public(methods)


def _public(found: Mapping[str, Function]) -> list[Function]:
    return [function for name, function in found.items() if not name.startswith("_")]


def _possible(body: Iterable[ast.stmt]) -> dict[str, Function]:
    """Names that may be given to functions as the code runs: by assignment, or below a condition."""
    names: list[str] = []
    for node in body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and not isinstance(node.value, _NO_FUNCTIONS | None):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While | ast.Match):
            names += [inner.name for inner in ast.walk(node) if isinstance(inner, Definition)]
    return {name: Function(name=name, parameters=None, certain=False) for name in names}


def _lineage(classes: Mapping[str, ast.ClassDef], name: str) -> Iterator[ast.ClassDef | None]:
    """The class, then its bases in the file, nearest first; None where one is from elsewhere."""
    if name == "object":
        return
    found = classes.get(name)
    yield found
    for base in found.bases if found is not None else ():
        earlier = {other: node for other, node in classes.items() if other != name}
        yield from _lineage(earlier, ast.unparse(base))


Definition = ast.FunctionDef | ast.AsyncFunctionDef


def _definitions(body: Iterable[ast.stmt]) -> Iterator[Definition]:
    return (node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _decorators(node: Definition | ast.ClassDef) -> set[str]:
    return {ast.unparse(decorator) for decorator in node.decorator_list}


def _function(node: Definition, bound: bool) -> Function:
    known = _decorators(node) <= _HARMLESS
    returns = _text(node.returns)
    head = returns.partition("[")[0].rpartition(".")[2]
    streams = head in _STREAMS or _yields(node)
    parameters = tuple(_parameters(node.args, bound)) if known else None
    return Function(name=node.name, parameters=parameters, returns=returns, streams=streams)


def _yields(node: Definition) -> bool:
    """Whether it is a generator: a yield of its own, not of a function within it."""
    todo: list[ast.AST] = list(node.body)
    while todo:
        one = todo.pop()
        if isinstance(one, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            todo.extend(ast.iter_child_nodes(one))
    return False


def _parameters(arguments: ast.arguments, bound: bool) -> Iterator[Parameter]:
    """In their order; the first of a method, which is its instance, left out."""
    kinds: list[tuple[ast.arg, Kind]] = [(one, "positional") for one in arguments.posonlyargs]
    kinds += [(one, "either") for one in arguments.args]
    defaults = list(zip_longest(reversed(kinds), reversed(arguments.defaults)))
    for (one, kind), default in list(reversed(defaults))[1 if bound else 0 :]:
        yield _parameter(one, kind, required=default is None)
    if arguments.vararg is not None:
        yield _parameter(arguments.vararg, "rest")
    for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield _parameter(one, "keyword", required=default is None)
    if arguments.kwarg is not None:
        yield _parameter(arguments.kwarg, "keywords")


def _parameter(one: ast.arg, kind: Kind, required: bool = False) -> Parameter:
    return Parameter(name=one.arg, kind=kind, required=required, annotation=_text(one.annotation))


def _text(annotation: ast.expr | None) -> str:
    """A type as text, the same however it was laid out; a string is what is in it."""
    if annotation is None:
        return ""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            annotation = ast.parse(annotation.value, mode="eval").body
        except SyntaxError:
            return ""
    return ast.unparse(annotation)
