"""Faust's schema hook, passing batches through: decoding is vectorised, in the shard."""

from __future__ import annotations

from typing import Any

import faust


class BatchSchema(faust.Schema[Any, Any]):
    """Keys and values reach the agent as they came from the log."""

    def loads_key(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:
        return message.key

    def loads_value(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:
        return message.value
