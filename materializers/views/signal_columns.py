"""What a schema declares of its signals, as arrays by dense signal index."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from materializers import decay
from schemas.model import Schema

NO_STATE = -1


def signal_codes(schema: Schema) -> npt.NDArray[np.uint32]:
    """The code under which each signal is stored, u32[signals]."""
    return np.array([signal.code for signal in schema.signal_list], dtype=np.uint32)


def accumulator_rates(schema: Schema) -> npt.NDArray[np.float64]:
    """Halvings a millisecond of each signal's accumulators, f64[signals, k] (see ``decay.rates``).

    A signal whose decay is linear or none has none: its reads come from blocks, or are the plain sum.
    """
    return decay.rates([signal.decay.half_lives_ms for signal in schema.signal_list])


def preference_weights(schema: Schema) -> npt.NDArray[np.float64]:
    """The preference weight p of each signal, f64[signals]."""
    return np.array([signal.preference for signal in schema.signal_list], dtype=np.float64)


def relationship_deltas(schema: Schema, type_name: str) -> npt.NDArray[np.float64]:
    """What one event of each signal adds to an edge of the type, f64[signals]."""
    deltas = [signal.relationship.get(type_name, 0.0) for signal in schema.signal_list]
    return np.array(deltas, dtype=np.float64)


def state_indexes(schema: Schema, *, clears: bool) -> npt.NDArray[np.int16]:
    """The state that each signal sets (or clears) as an index into ``schema.states``, NO_STATE if none."""
    index: Mapping[str, int] = {name: position for position, name in enumerate(schema.states)}
    names = [signal.clears if clears else signal.state for signal in schema.signal_list]
    return np.array([NO_STATE if name is None else index[name] for name in names], dtype=np.int16)
