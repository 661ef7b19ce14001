"""Named files in one folder: each is replaced whole or not at all, also when the power goes."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from noodle_ray.errors import InvalidInput, NotFound, Unavailable

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class Folder:
    """Files `<name><ending>`. Methods block. Raise Unavailable where the disk refuses, InvalidInput for a name that
    could lead elsewhere."""

    def __init__(self, path: Path, kind: str, ending: str) -> None:
        """`kind`: what the files are, for messages."""
        self._path, self._kind, self._ending = path, kind, ending

    def names(self) -> list[str]:
        if not self._path.is_dir():
            return []
        found = (path.name.removesuffix(self._ending) for path in self._path.glob(f"*{self._ending}"))
        return sorted(name for name in found if _NAME.fullmatch(name))

    def path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise InvalidInput.of(self._kind, f"must be named like {_NAME.pattern}", name)
        return self._path / f"{name}{self._ending}"

    def read(self, name: str) -> bytes:
        """Raises NotFound."""
        try:
            return self.path(name).read_bytes()
        except FileNotFoundError:
            raise NotFound(self._kind, name, self.names()) from None
        except OSError as error:
            raise Unavailable(f"{self.path(name)} cannot be read: {error.strerror}") from error

    def head(self, name: str, size: int) -> bytes:
        """The first `size` bytes. Raises NotFound."""
        try:
            with self.path(name).open("rb") as file:
                return file.read(size)
        except FileNotFoundError:
            raise NotFound(self._kind, name, self.names()) from None
        except OSError as error:
            raise Unavailable(f"{self.path(name)} cannot be read: {error.strerror}") from error

    def write(self, name: str, content: bytes) -> None:
        """Beside first, then moved into place: whoever reads meanwhile gets the old or the new."""
        target = self.path(name)
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._path, prefix=".new-", delete=False) as file:
                draft = Path(file.name)
                try:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                    draft.replace(target)
                except BaseException:
                    draft.unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise Unavailable(f"{target} cannot be written: {error.strerror}") from error

    def delete(self, name: str) -> None:
        """Raises NotFound."""
        try:
            self.path(name).unlink()
        except FileNotFoundError:
            raise NotFound(self._kind, name, self.names()) from None
        except OSError as error:
            raise Unavailable(f"{self.path(name)} cannot be deleted: {error.strerror}") from error
