"""The scaffold: the files of a new module, ready to be published."""

from __future__ import annotations

from collections.abc import Mapping

from noodle_ray.errors import InvalidInput
from noodle_ray.modules.manifest import normalise_name

_MANIFEST = """[tool.noodle.module]
name = "{name}"
version = "0.1.0"
description = "What it does, in one sentence."
entry_point = "{package}.{file}:{kind}"
health_check = "is_well"
# requires = {{tokenizer = ">=1.0,<2"}}                 # other modules
# resources = {{cpus = 1, memory = "1GiB"}}             # what one loaded instance holds
"""

_CODE = '''"""What others can call: the public methods of the class that the manifest names."""


class {kind}:
    def greet(self, name: str, polite: bool = True) -> str:
        return f"Good day, {{name}}." if polite else f"{{name}}!"

    def is_well(self) -> bool:
        return self.greet("you") != ""
'''

_STATE = """
[tool.noodle.module.state]
schema_version = 1      # of what export_state gives
# reads = []            # older ones that import_state can read beside it
# durable = true        # what a call has changed is kept before it is answered
"""

_CODE_WITH_STATE = '''"""What others can call: the public methods of the class that the manifest names."""

from __future__ import annotations

from typing import Any


class {kind}:
    def __init__(self) -> None:
        self._visits: dict[str, int] = {{}}

    async def greet(self, name: str) -> str:
        """Asynchronous, so that no two calls change the visits at once."""
        self._visits[name] = self._visits.get(name, 0) + 1
        return f"Good day, {{name}}, for the {{self._visits[name]}}. time."

    def export_state(self) -> dict[str, Any]:
        """What the next version, or this one after a restart, goes on from: plain values that can be pickled."""
        return {{"visits": dict(self._visits)}}

    def import_state(self, state: dict[str, Any], from_version: int) -> None:
        """Goes on from a state of this schema version, or of one that the manifest says it reads."""
        self._visits = dict(state["visits"])

    def is_well(self) -> bool:
        return isinstance(self._visits, dict)
'''

_FILE = "service"


def scaffold(name: str, state: bool = False) -> Mapping[str, str]:
    """The files, by their path in the module's directory. `state`: of one that keeps something between calls.

    Raises InvalidInput where the name makes no package.
    """
    name = normalise_name(name)
    package = name.replace("-", "_")
    if not package.isidentifier():
        raise InvalidInput.of("name", "must begin with a letter, for its package is named after it", name)
    kind = "".join(part.capitalize() for part in package.split("_"))
    values = {"name": name, "package": package, "file": _FILE, "kind": kind}
    return {
        "pyproject.toml": _MANIFEST.format(**values) + (_STATE if state else ""),
        f"{package}/__init__.py": "",
        f"{package}/{_FILE}.py": (_CODE_WITH_STATE if state else _CODE).format(**values),
    }
