"""The rules of profiles: every aggregate that a term reads is one that the engine keeps."""

from __future__ import annotations

from collections.abc import Iterator

from schemas.durations import ALL_TIME
from schemas.errors import PredicateError, Problem
from schemas.model import Profile, Schema, SignalDef, Term
from schemas.nearest import nearest
from schemas.predicate_check import check
from schemas.predicate_parser import parse_predicate
from schemas.sort_names import ROLES_OF_SOURCES


def profile_problems(schema: Schema, profile: Profile) -> Iterator[Problem]:
    """Every problem of one version of a profile."""
    path = f"profiles.{profile.name}"
    signal = schema.signals.get(profile.signal)
    if signal is None:
        near = nearest(profile.signal, schema.signals)
        yield Problem(f"{path}.signal", profile.signal, "a declared signal", near)
    else:
        yield from _window_problems(signal, profile.window, f"{path}.window", needs_duration=False)
    if not profile.sources:
        yield Problem(f"{path}.sources", [], "at least one source of candidates")
    for index, source in enumerate(profile.sources):
        yield from _role_problems(schema, profile, source.source, f"{path}.sources[{index}]")
    for index, term in enumerate(profile.terms):
        yield from _term_problems(schema, term, f"{path}.terms[{index}]")
    for index, gate in enumerate(profile.gates):
        yield from _gate_problems(schema, gate, f"{path}.gates[{index}]")


def _role_problems(schema: Schema, profile: Profile, source: str, path: str) -> Iterator[Problem]:
    """A source that counts likes needs a signal that stands for them, with the window of the profile."""
    for role in ROLES_OF_SOURCES.get(source, ()):
        if not schema.roles.get(role):
            yield Problem(path, source, f"a signal for the role {role}, like roles: {{{role}: NAME}}")
        for name in schema.roles.get(role, ()):
            if name in schema.signals:
                yield from _window_problems(schema.signals[name], profile.window, path, needs_duration=False)


def _window_problems(
    signal: SignalDef, window: str | None, path: str, needs_duration: bool
) -> Iterator[Problem]:
    allowed = [name for name in signal.windows if not (needs_duration and name == ALL_TIME)]
    if window not in allowed:
        expected = f"a window of {signal.name}: {', '.join(allowed) or 'it has none'}"
        yield Problem(path, window, expected, nearest(window, allowed))


def _term_problems(schema: Schema, term: Term, path: str) -> Iterator[Problem]:
    if term.term == "recency" and (term.curve is None or term.scale_ms is None):
        yield Problem(path, term.term, "a curve and a scale, like curve: exponential, scale: 7d")
    if term.term == "signal" and (term.signal is None or term.read is None):
        yield Problem(path, term.term, "a signal and a read, like signal: like, read: count, window: 24h")
    if term.term == "penalty" and term.signal is not None and term.read is None:
        yield Problem(path, term.term, "a read for the signal, like read: ratio, over: view, window: 7d")
    for key, name in (("signal", term.signal), ("over", term.over)):
        if name is not None and name not in schema.signals:
            yield Problem(f"{path}.{key}", name, "a declared signal", nearest(name, schema.signals))
    signal = schema.signals.get(term.signal or "")
    if signal is not None and term.read is not None:
        yield from _read_problems(schema, term, signal, path)


def _read_problems(schema: Schema, term: Term, signal: SignalDef, path: str) -> Iterator[Problem]:
    if term.read == "decay":
        names = signal.decay.scores
        needed = signal.decay.kind == "exponential"
        if term.half_life not in names and (needed or term.half_life is not None):
            expected = f"a decayed score of {signal.name}: {', '.join(names)}"
            yield Problem(f"{path}.half_life", term.half_life, expected, nearest(term.half_life, names))
        return
    needs_duration = term.read in ("velocity", "acceleration")
    yield from _window_problems(signal, term.window, f"{path}.window", needs_duration)
    if term.read == "ratio":
        yield from _ratio_problems(schema, term, path)


def _ratio_problems(schema: Schema, term: Term, path: str) -> Iterator[Problem]:
    if term.over is None:
        yield Problem(f"{path}.over", None, "the signal to divide by")
    elif term.over in schema.signals:
        yield from _window_problems(schema.signals[term.over], term.window, f"{path}.over", False)


def _gate_problems(schema: Schema, gate: str, path: str) -> Iterator[Problem]:
    try:
        check(parse_predicate(gate, schema.limits.max_predicate_depth), schema, "item")
    except PredicateError as error:
        yield Problem(path, gate, f"a predicate on items: {error.summary}", error.nearest)
