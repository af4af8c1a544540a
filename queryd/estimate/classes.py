"""A cohort reduced to what it tells apart: for each dimension that it names, a few classes of values.

``locale:US, age:18-24`` is a table of two by two: US or not, 18-24 or not. Estimates are made over such
tables, whatever the number of values that the dimensions have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np

from queryd.hot.arrays import U8, Mask
from queryd.hot.profiles import ProfileTable
from schemas.predicate import And, Comparison, Flag, Not, Or, Predicate, leaves, matches_profile, subject

AXES_MAX: Final = 4
CELLS_MAX: Final = 64
"""Larger tables would cost more to fit than the rows that they save."""

_Verdicts = tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Axis:
    """One dimension: the predicates of all its classes but the last, which is what remains."""

    name: str
    classes: tuple[Predicate, ...]

    @property
    def size(self) -> int:
        """Number of classes, the last one included."""
        return len(self.classes) + 1


@dataclass(frozen=True, slots=True)
class Table:
    """The classes of every dimension that a cohort names; ``allowed`` bool[*sizes]: cells that are in it."""

    axes: tuple[Axis, ...]
    allowed: Mask

    @property
    def shape(self) -> tuple[int, ...]:
        """Classes by dimension."""
        return tuple(axis.size for axis in self.axes)

    def codes(self, profiles: ProfileTable) -> U8:
        """The cell of each profile, u8[profiles], counted through in row-major order."""
        codes = np.zeros(len(profiles), dtype=np.uint8)
        for axis in self.axes:
            of_axis = np.full(len(profiles), axis.size - 1, dtype=np.uint8)
            for number, predicate in enumerate(axis.classes):
                of_axis[profiles.mask(predicate)] = number
            codes = codes * np.uint8(axis.size) + of_axis
        return codes


def reduced(predicate: Predicate, profiles: ProfileTable) -> Table:
    """The table of a checked cohort predicate: one of two classes, in or out, if it would grow too large."""
    atoms: dict[str, list[Predicate]] = {}
    _gather(predicate, atoms)
    axes, verdicts = [], []
    for name in sorted(atoms):
        axis, by_class = _axis(name, atoms[name], profiles)
        axes.append(axis)
        verdicts.append(by_class)
    shape = tuple(axis.size for axis in axes)
    if len(axes) > AXES_MAX or prod(shape) > CELLS_MAX:
        return Table((Axis("", (predicate,)),), np.array([True, False]))
    places = {
        (axis.name, atom): (number, [by_class[place] for by_class in verdicts[number]])
        for number, axis in enumerate(axes)
        for place, atom in enumerate(atoms[axis.name])
    }
    return Table(tuple(axes), np.broadcast_to(_allowed(predicate, places, len(axes)), shape))


def pair(first: Predicate, second: Predicate) -> Predicate:
    """Both hold: the predicate under which a two-way counter is kept."""
    return And((first, second))


def _names(predicate: Predicate) -> set[str]:
    return {subject(leaf) for leaf in leaves(predicate) if isinstance(leaf, Comparison | Flag)}


def _gather(predicate: Predicate, atoms: dict[str, list[Predicate]]) -> None:
    """The largest parts that are about one dimension, by dimension."""
    names = _names(predicate)
    if len(names) == 1:
        held = atoms.setdefault(names.pop(), [])
        if predicate not in held:
            held.append(predicate)
        return
    match predicate:
        case And(children) | Or(children):
            for child in children:
                _gather(child, atoms)
        case Not(child):
            _gather(child, atoms)


def _axis(name: str, atoms: Sequence[Predicate], profiles: ProfileTable) -> tuple[Axis, list[_Verdicts]]:
    """Values that all atoms judge alike are one class; those judged like no value at all come last."""
    judged = (
        tuple(matches_profile(atom, {name: value}) for atom in atoms) for value in profiles.values(name)
    )
    rest = tuple(matches_profile(atom, {}) for atom in atoms)
    classes = [each for each in dict.fromkeys(judged) if each != rest]
    return Axis(name, tuple(_judging(atoms, each) for each in classes)), [*classes, rest]


def _judging(atoms: Sequence[Predicate], verdicts: _Verdicts) -> Predicate:
    parts = [atom if holds else _negated(atom) for atom, holds in zip(atoms, verdicts, strict=True)]
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _negated(predicate: Predicate) -> Predicate:
    return predicate.child if isinstance(predicate, Not) else Not(predicate)


def _allowed(
    predicate: Predicate, places: dict[tuple[str, Predicate], tuple[int, list[bool]]], axes: int
) -> Mask:
    """Which cells satisfy ``predicate``, broadcastable to the table's shape."""
    names = _names(predicate)
    if len(names) == 1:
        axis, verdicts = places[(names.pop(), predicate)]
        return np.array(verdicts).reshape([-1 if number == axis else 1 for number in range(axes)])
    match predicate:
        case And(children):
            return _combined(np.logical_and, [_allowed(child, places, axes) for child in children])
        case Or(children):
            return _combined(np.logical_or, [_allowed(child, places, axes) for child in children])
        case Not(child):
            return ~_allowed(child, places, axes)
        case _:
            return np.zeros([1] * axes, dtype=np.bool_)


def _combined(operation: np.ufunc, parts: Sequence[Mask]) -> Mask:
    found = parts[0]
    for part in parts[1:]:
        found = operation(found, part)
    return found
