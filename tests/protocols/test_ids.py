"""Message ids: one for each message, the same for the same message key."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocols.ids import KeySpace, record_message_id

parts = st.one_of(st.integers(-(2**40), 2**40), st.text(max_size=8), st.booleans())
keys = st.lists(parts, min_size=1, max_size=3)


@given(
    st.tuples(st.integers(1, 2**63 - 1), st.integers(0, 2**40 - 1), st.integers(0, 2**24 - 1)),
    st.tuples(st.integers(1, 2**63 - 1), st.integers(0, 2**40 - 1), st.integers(0, 2**24 - 1)),
)
def test_ids_of_records_differ_as_the_records_do(one: tuple[int, int, int], two: tuple[int, int, int]) -> None:
    assert (record_message_id(*one) == record_message_id(*two)) == (one == two)
    assert record_message_id(*one)[0] < 0x80, "never in the space of keyed ids"


@given(keys, keys, st.integers(0, 2))
def test_ids_of_keys_differ_as_the_keys_do(one: list[int | str], two: list[int | str], index: int) -> None:
    space = KeySpace("p", "n", "serial", "a")
    same = [(type(part), part) for part in one] == [(type(part), part) for part in two]
    assert (space.message_id(one, index) == space.message_id(two, index)) == same
    assert space.message_id(one, 0) != space.message_id(one, 1)
    assert space.message_id(one)[0] >= 0x80


def test_ids_of_a_key_differ_between_names() -> None:
    names = [
        ("p", "n", "k", "a"),
        ("q", "n", "k", "a"),
        ("p", "m", "k", "a"),
        ("p", "n", "l", "a"),
        ("p", "n", "k", "b"),
    ]
    for key in ((1, 2), ("x", 2), (2**30, 2)):
        assert len({KeySpace(*name).message_id(key) for name in names}) == len(names)


def test_keys_of_one_boot_sort_by_their_sequence() -> None:
    space = KeySpace("p", "n", "serial", "a")
    ids = [space.message_id((boot, seq)) for boot in (1, 2) for seq in (1, 2, 300, 70_000)]
    assert ids == sorted(ids)
