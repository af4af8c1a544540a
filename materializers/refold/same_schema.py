"""A refold with another schema than the workers' would call everything wrong, or make it wrong."""

from __future__ import annotations

from materializers.tables.reader import TableReader
from schemas.errors import TidalError
from schemas.fingerprint import schema_fingerprint
from schemas.model import Schema


class OtherSchemaError(TidalError):
    """The workers fold with another schema."""


def check_schema(reader: TableReader, schema: Schema) -> None:
    """Compare with what the workers say of themselves; one that says nothing is not asked again.

    Raises:
        OtherSchemaError: a worker uses another schema.
    """
    mine = schema_fingerprint(schema)
    for name, status in reader.status().items():
        theirs = status.get("schema")
        if theirs is not None and theirs != mine:
            raise OtherSchemaError(
                f"{name} folds with another schema than {schema.name!r}; name its file with --schema"
            )
