"""Where a page of ids ended: opaque, bound to its list, refused when it is anything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queryd.errors import CursorError
from queryd.page_token import decode_page_token, encode_page_token


@given(st.text(max_size=40), st.text(max_size=256))
def test_a_token_leads_back_to_its_place(listing: str, last: str) -> None:
    token = encode_page_token(listing, last)
    assert token.isascii()
    assert "=" not in token
    assert decode_page_token(token, listing) == last


@pytest.mark.parametrize("token", ["", "!", "item_1", "AAAA", "a" * 10_000, encode_page_token("saved", "x")])
def test_what_is_no_token_of_the_list_is_refused(token: str) -> None:
    with pytest.raises(CursorError):
        decode_page_token(token, "liked")
