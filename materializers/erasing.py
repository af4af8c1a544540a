"""What every view needs to erase a user: the rows whose keys begin with the user's EntityId."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from materializers.materializer import RowReader, RowWriter
from schemas.keys import entity_range


def erase_rows(
    table: str, entity_ids: npt.NDArray[np.uint64], reader: RowReader, writer: RowWriter
) -> dict[str, int]:
    """Delete every row of the entities u64[n] in a table of one partition; rows erased by table."""
    erased = 0
    for entity_id in entity_ids.tolist():
        for key in [key for key, _ in reader.scan(table, *entity_range(entity_id))]:
            writer.delete(table, key)
            erased += 1
    return {table: erased} if erased else {}
