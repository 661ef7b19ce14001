"""Loads parts of pretrained models from a directory or a hub id, quietly and with a clear error."""

from __future__ import annotations

from typing import Any

from noodle_ray.errors import CorruptData, Unavailable


def from_pretrained(kind: str, source: Any, **where: Any) -> Any:
    """`transformers.<kind>.from_pretrained(source)`, with `where`: revision, local_files_only, dtype.

    Raises Unavailable where the source is not to be had, CorruptData where its weights cannot be read.
    """
    import transformers  # takes a second, which whoever reads a plain BERT need not wait for
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return getattr(transformers, kind).from_pretrained(source, **where)
    except OSError as error:
        raise Unavailable(f"{kind}: cannot load {source}: {_first_line(error)}") from error
    except Exception as error:  # safetensors and configurations raise errors of many kinds; all mean damaged files
        raise CorruptData(f"{kind}: {source} is damaged ({type(error).__name__}: {_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "no reason given")
