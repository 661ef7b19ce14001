"""This process's connection to Ray: opened with the right token, whatever was imported before."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]  # a compiled module

from noodle_ray.actors.names import NAMESPACE
from noodle_ray.errors import Unavailable


def use_token(token_file: Path) -> None:
    """Has this process show the token. Ray reads its settings once, at import: so it is told to read them again."""
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token_file)
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def open_connection(address: str) -> None:
    """Connects this process as a driver. Raises Unavailable where no cluster answers, or it refuses the token."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise Unavailable(f"no Ray cluster answers at {address}: {error}") from error


@contextmanager
def connection(address: str) -> Iterator[None]:
    """A connection for the length of the block."""
    open_connection(address)
    try:
        yield
    finally:
        ray.shutdown()
