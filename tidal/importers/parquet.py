"""Rows of a Parquet file, as JSON would have them. Read by pyarrow, which is an extra: ``tidal[parquet]``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from schemas.epoch import epoch_ms
from tidal.importers.rows import ImporterError

_ROWS_AT_ONCE: Final = 8_192


def parquet_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows with their numbers, from 1; what is null is left out. Times become milliseconds since 1970.

    Raises:
        ImporterError: pyarrow is not installed, it is no Parquet, or a column of `needed` is missing.
    """
    try:
        import pyarrow  # type: ignore[import-untyped]
        from pyarrow import parquet
    except ImportError as error:
        message = f"{path}: Parquet is read by pyarrow, which is not installed: pip install 'tidal[parquet]'"
        raise ImporterError(message) from error
    row = 0
    try:
        with parquet.ParquetFile(path) as file:
            _require(path, file.schema_arrow.names, needed)
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                for record in batch.to_pylist():
                    row += 1
                    yield row, {name: _plain(value) for name, value in record.items() if value is not None}
    except pyarrow.ArrowException as error:
        raise ImporterError(f"{path}: cannot be read as Parquet after row {row}: {error}") from error


def _require(path: Path, columns: Sequence[str], needed: Sequence[str]) -> None:
    missing = [name for name in needed if name not in columns]
    if missing:
        raise ImporterError(f"{path}: no column {', '.join(missing)}; it has {', '.join(columns)}")


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return epoch_ms(value)
        case date():
            return value.isoformat()
        case Decimal():
            return float(value)
        case list():
            return [_plain(entry) for entry in value]
        case _:
            return value
