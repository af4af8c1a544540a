"""Position tokens: round trips, and what is said about a bad one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import PositionError
from streams.positions import TOKEN_CHARS_MAX, Position, Positions

A_POSITION = Position("tidal.signals", 3, 1234567)
positions = st.builds(
    Position,
    st.sampled_from(["tidal.signals", "tidal.items", "tidal.users"]),
    st.integers(0, 2000),
    st.integers(0, 2**63 - 1),
)


@given(positions)
def test_one_position_survives_its_token(position: Position) -> None:
    """Every offset that a log can have."""
    assert Position.parse(position.encode()) == position


@given(st.lists(positions, max_size=50))
def test_several_positions_survive_their_token(many: list[Position]) -> None:
    """Sorted, the newest of each partition."""
    combined = Positions.of(many)
    assert Positions.parse(combined.encode()) == combined
    for position in many:
        kept = [p for p in combined if (p.topic, p.partition) == (position.topic, position.partition)]
        assert len(kept) == 1
        assert kept[0].offset >= position.offset


@given(st.lists(positions, max_size=20))
def test_a_token_needs_no_escaping_in_a_url(many: list[Position]) -> None:
    """It goes into a query string and into the language's AFTER as it is."""
    assert re.fullmatch(r"[A-Za-z0-9_-]+", Positions.of(many).encode())


@given(positions, st.data())
def test_a_changed_character_is_noticed(position: Position, data: st.DataObject) -> None:
    """All but the last character carry six bits that the check bytes cover."""
    token = position.encode()
    index = data.draw(st.integers(0, len(token) - 2))
    other = data.draw(st.sampled_from("ABCxyz019-_").filter(lambda c: c != token[index]))
    with pytest.raises(PositionError):
        Position.parse(token[:index] + other + token[index + 1 :])


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("", "1 to 8192 characters, not 0"),
        ("A" * (TOKEN_CHARS_MAX + 1), "1 to 8192 characters, not 8193"),
        ("ä" * 8, "not URL-safe base64"),
        ("a b c", "not URL-safe base64"),
        ("AAAA", "damaged or cut off"),
        (A_POSITION.encode()[:-4], "damaged or cut off"),
    ],
)
def test_a_bad_token_says_what_is_wrong(token: str, says: str) -> None:
    """Each message names the token or its size."""
    with pytest.raises(PositionError, match=says):
        Position.parse(token)


def test_a_token_of_a_later_version_is_refused_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token outlives a release; its version is checked before its content."""
    monkeypatch.setattr("streams.positions.TOKEN_VERSION", 2)
    token = A_POSITION.encode()
    monkeypatch.undo()
    with pytest.raises(PositionError, match="version 2, this release reads 1"):
        Position.parse(token)


def test_a_token_of_several_positions_is_not_one_position() -> None:
    """Nothing is picked silently."""
    token = Positions.of([A_POSITION, Position("tidal.signals", 4, 1)]).encode()
    with pytest.raises(PositionError, match="2 positions where one is expected"):
        Position.parse(token)
