"""One number for all that a schema declares, to tell whether two processes use the same."""

from __future__ import annotations

import msgspec
from blake3 import blake3

from schemas.document_form import to_document
from schemas.model import Schema


def schema_fingerprint(schema: Schema) -> str:
    """32 hexadecimal digits; equal for equal declarations, wherever they were loaded from."""
    return blake3(msgspec.json.encode(to_document(schema), order="sorted")).hexdigest()[:32]
