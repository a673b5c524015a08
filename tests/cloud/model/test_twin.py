"""Merging what is desired, and finding what is between that and what is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.model.twin import delta, depth, merge_patch

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3) | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)
objects = st.dictionaries(st.sampled_from("abc"), json_values, max_size=3)


@pytest.mark.parametrize(
    ("target", "patch", "merged"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_patches_merge_as_the_rfc_shows(target: Any, patch: Any, merged: Any) -> None:
    """RFC 7386, appendix A."""
    assert merge_patch(target, patch) == merged


@given(objects, objects)
def test_a_patch_applied_twice_is_applied_once(target: dict[str, Any], patch: dict[str, Any]) -> None:
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once


@given(objects, objects)
def test_what_reports_the_delta_has_none(desired: dict[str, Any], reported: dict[str, Any]) -> None:
    between = delta(desired, reported)
    assert between.keys() <= desired.keys()
    assert delta(desired, {**reported, **between}) == {}


def test_true_is_no_number_and_a_number_has_one_value() -> None:
    assert delta({"a": True, "b": 1, "c": [1], "d": {"x": 0}}, {"a": 1, "b": 1.0, "c": [True], "d": {"x": False}}) == {
        "a": True, "c": [1], "d": {"x": 0},
    }  # fmt: skip


def test_depth() -> None:
    assert [depth(value) for value in (1, {}, {"a": 1}, {"a": [1]}, [[[]], 1])] == [0, 0, 1, 2, 2]
