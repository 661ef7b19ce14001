"""The four modalities, in the order in which they are always treated."""

from __future__ import annotations

FIELD_OF = {"text": "text", "audio": "audio", "vision": "image", "code": "code"}
"""Each modality, and the field of a request that carries it."""

MODALITIES = tuple(FIELD_OF)
FIELDS = tuple(FIELD_OF.values())
CONTEXT = "context"
"""What a session remembers, as evidence beside the modalities."""
