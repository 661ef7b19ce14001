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

_FILE = "service"


def scaffold(name: str) -> Mapping[str, str]:
    """The files, by their path in the module's directory. Raises InvalidInput where the name makes no package."""
    name = normalise_name(name)
    package = name.replace("-", "_")
    if not package.isidentifier():
        raise InvalidInput.of("name", "must begin with a letter, for its package is named after it", name)
    kind = "".join(part.capitalize() for part in package.split("_"))
    values = {"name": name, "package": package, "file": _FILE, "kind": kind}
    return {
        "pyproject.toml": _MANIFEST.format(**values),
        f"{package}/__init__.py": "",
        f"{package}/{_FILE}.py": _CODE.format(**values),
    }
