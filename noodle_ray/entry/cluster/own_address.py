"""The address of this machine under which another one reaches it."""

from __future__ import annotations

import socket

from noodle_ray.errors import InvalidInput

_FAR_AWAY = "192.0.2.1"
"""An address for documentation, of nobody: nothing is sent to it, but the way there begins at our usual interface."""


def own_address(towards: str = _FAR_AWAY) -> str:
    """This machine's address on the way to another; without one, on the way to anywhere.

    Raises InvalidInput where there is no way there: then the address must be given.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        try:
            way.connect((towards, 9))
            return str(way.getsockname()[0])
        except OSError as error:
            fault = f"give this machine's address; there is no way from it to {towards}: {error.strerror or error}"
            raise InvalidInput.of("address", fault, towards) from None
