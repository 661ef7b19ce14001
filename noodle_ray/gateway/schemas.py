"""JSON schemas of bodies that a route reads by itself, so that the framework does not know of them."""

from __future__ import annotations

from typing import Any

from noodle_ray.base_model import Model

_DEFINITION = "#/$defs/"


def inlined_schema(model: type[Model]) -> dict[str, Any]:
    """The model's schema without references, so that it may stand anywhere in a document."""
    schema = model.model_json_schema()
    found: dict[str, Any] = _inlined(schema, schema.pop("$defs", {}))
    return found


def _inlined(value: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_inlined(item, definitions) for item in value]
    if not isinstance(value, dict):
        return value
    if isinstance(reference := value.get("$ref"), str):
        return _inlined(definitions[reference.removeprefix(_DEFINITION)], definitions)
    return {key: _inlined(item, definitions) for key, item in value.items()}
