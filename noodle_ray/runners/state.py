"""A module's state as bytes. The first one says how it is packed: as plain data, or as Python's own pickle."""

from __future__ import annotations

import pickle

from noodle_ray.runners import frames

PLAIN = b"M"
PICKLED = b"P"


def pack_state(state: object, plain: bool) -> bytes:
    """Packs what a module exported. Whatever it raises is the module's fault: it gave what cannot be packed."""
    if not plain:
        return PICKLED + pickle.dumps(state, pickle.HIGHEST_PROTOCOL)
    try:
        return PLAIN + frames.pack(state)
    except frames.NotPlain as error:
        raise TypeError(f"the state of a sandboxed module must be plain data; it holds {error}") from None


def unpack_state(packed: bytes) -> object:
    """The state again, whichever way it was packed. To be called where the module's own code runs, nowhere else."""
    if packed[:1] == PLAIN:
        return frames.unpack(packed[1:])
    return pickle.loads(packed[1:])  # noqa: S301 - it may run code, as the module itself does right here
