"""What a protocol says beside a payload."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from protocols.metadata import METADATA, decode_metadata, encode_metadata, with_metadata


@given(st.dictionaries(st.text(), st.text(), min_size=1), st.dictionaries(st.text(), st.integers()))
def test_it_stands_in_the_data_and_every_database_can_hold_it(metadata: dict[str, str], data: dict[str, int]) -> None:
    data.pop(METADATA, None)
    found = msgspec.json.decode(with_metadata(msgspec.json.encode(data), encode_metadata(metadata)))
    shown = found.pop(METADATA)
    assert found == data
    assert "\0" not in "".join([*shown, *shown.values()])
    if not any("\0" in name + text for name, text in metadata.items()):
        assert shown == metadata


@given(st.binary())
def test_what_cannot_be_read_is_none(rubbish: bytes) -> None:
    assert all("\0" not in name + text for name, text in decode_metadata(rubbish).items())
    assert with_metadata(b"{}", b"\xff") == b"{}"
