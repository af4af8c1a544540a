"""What a schema declares of its signals, as arrays by dense signal index."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from materializers import decay
from schemas.model import Schema

I64 = npt.NDArray[np.int64]


def signal_codes(schema: Schema) -> npt.NDArray[np.uint32]:
    """The code under which each signal is stored, u32[signals]."""
    return np.array([signal.code for signal in schema.signal_list], dtype=np.uint32)


def accumulator_rates(schema: Schema) -> npt.NDArray[np.float64]:
    """Halvings a millisecond of each signal's accumulators, f64[signals, k] (see ``decay.rates``).

    A signal whose decay is linear or none has none: its reads come from blocks, or are the plain sum.
    """
    return decay.rates([signal.decay.half_lives_ms for signal in schema.signal_list])


def linear_signals(schema: Schema) -> npt.NDArray[np.bool_]:
    """Which signals decay linearly, bool[signals]: their blocks keep when in a bucket its events lay."""
    return np.array([signal.decay.kind == "linear" for signal in schema.signal_list], dtype=np.bool_)


def preference_weights(schema: Schema) -> npt.NDArray[np.float64]:
    """The preference weight p of each signal, f64[signals]."""
    return np.array([signal.preference for signal in schema.signal_list], dtype=np.float64)


def relationship_deltas(schema: Schema, type_name: str) -> npt.NDArray[np.float64]:
    """What one event of each signal adds to an edge of the type, f64[signals]."""
    deltas = [signal.relationship.get(type_name, 0.0) for signal in schema.signal_list]
    return np.array(deltas, dtype=np.float64)


class StateOperations(NamedTuple):
    """What each signal does to user states: ``counts`` i64[signals] operations, the one at ``first``
    i64[signals] and those after it. Each has a ``state`` i64[ops] (index into ``schema.states``) and ``sets``
    i64[ops], 1 to set and 0 to clear.
    """

    first: I64
    counts: I64
    state: I64
    sets: I64

    def of(self, signal: npt.NDArray[np.uint16]) -> tuple[I64, I64]:
        """For the events with these signals u16[n] the operations in order: positions of events i64[m] and
        operations i64[m]."""
        counts = self.counts[signal]
        events = np.repeat(np.arange(len(signal)), counts)
        before = np.repeat(np.cumsum(counts) - counts, counts)
        return events, self.first[signal[events]] + np.arange(len(events)) - before


def state_operations(schema: Schema) -> StateOperations:
    """What each signal clears and sets."""
    index = {name: position for position, name in enumerate(schema.states)}
    return _operations(
        [(index[state], 0) for state in signal.clears] + [(index[state], 1) for state in signal.state]
        for signal in schema.signal_list
    )


def states_set(schema: Schema, states: Collection[str]) -> StateOperations:
    """Which of ``states`` each signal sets."""
    index = {name: position for position, name in enumerate(schema.states)}
    return _operations(
        [(index[state], 1) for state in signal.state if state in states] for signal in schema.signal_list
    )


def _operations(of_signals: Iterable[list[tuple[int, int]]]) -> StateOperations:
    operations = list(of_signals)
    counts = np.array([len(each) for each in operations], dtype=np.int64)
    pairs = np.array([pair for each in operations for pair in each], dtype=np.int64).reshape(-1, 2)
    return StateOperations(np.cumsum(counts) - counts, counts, pairs[:, 0].copy(), pairs[:, 1].copy())
