"""Declarations that make no sense are refused, naming what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from cloud.model.attribute import Attribute
from cloud.model.blueprint import DEFAULT_BYTES_MAX, ENUMERATION_MAX, DeclarationError, checked


@pytest.mark.parametrize(
    ("declared", "attribute", "field", "detail"),
    [
        ({"a": Attribute("number", minimum=2, maximum=1)}, "a", "minimum", "2 is above the maximum 1"),
        ({"a": Attribute("string", maximum=1)}, "a", "maximum", "a string has no maximum"),
        ({"a": Attribute("number", maximum=float("inf"))}, "a", "maximum", "is not finite"),
        ({"a": Attribute("number", maximum=10**400)}, "a", "maximum", "is not finite"),
        ({"a": Attribute("integer", minimum=0.5)}, "a", "minimum", "0.5 is no integer of 64 bits"),
        ({"a": Attribute("boolean", unit="°C")}, "a", "unit", "a boolean has no unit"),
        ({"a": Attribute("boolean", enumeration=(1,))}, "a", "enumeration", "a boolean has no enumeration"),
        ({"a": Attribute("number", enumeration=(1, "x"))}, "a", "enumeration", '"x" is no number'),
        ({"a": Attribute("string", enumeration=(1,))}, "a", "enumeration", "1 is no string"),
        ({"a": Attribute("integer", enumeration=(1, 1.5))}, "a", "enumeration", "1.5 is no whole number"),
        ({"a": Attribute("number", enumeration=(1, 1.0))}, "a", "enumeration", "has a value twice"),
        ({"a": Attribute("number", maximum=3, enumeration=(4,))}, "a", "enumeration", "4 is above the maximum 3"),
        ({"a": Attribute("number", maximum=3, default=4)}, "a", "default", "4 is above the maximum 3"),
        ({"a": Attribute("object", default=[])}, "a", "default", "[] is no object"),
        ({"a": Attribute("string", default="\0")}, "a", "default", "holds the character U+0000, which no data has"),
        ({"a..b": Attribute("string")}, "a..b", "", "'a..b' is no path"),
        ({"a": Attribute("string"), "\\a": Attribute("string")}, "\\a", "", "names the same as 'a'"),
        ({"a": Attribute("number"), "a.b": Attribute("string")}, "a.b", "", "a is a number, which has no parts"),
        (
            {"a": Attribute("object", history=False), "a.b": Attribute("string")},
            "a.b",
            "history",
            "a is not kept in history, and this is a part of it",
        ),
    ],
)
def test_what_makes_no_sense(declared: dict[str, Attribute], attribute: str, field: str, detail: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        checked(declared)
    assert (caught.value.attribute, caught.value.field, str(caught.value)) == (attribute, field, detail)


@pytest.mark.parametrize(
    ("attribute", "limit"),
    [
        (Attribute("number", enumeration=tuple(range(ENUMERATION_MAX + 1))), ENUMERATION_MAX),
        (Attribute("string", default="x" * DEFAULT_BYTES_MAX), DEFAULT_BYTES_MAX),
    ],
)
def test_limits_are_named(attribute: Attribute, limit: int) -> None:
    with pytest.raises(DeclarationError) as caught:
        checked({"a": attribute})
    assert caught.value.limit == limit


@pytest.mark.parametrize(
    ("given", "kept"),
    [("21.5", 21.5), (21.5, 21.5), (None, None)],
)
def test_a_default_is_kept_as_a_value_would_be(given: Any, kept: Any) -> None:
    assert checked({"a": Attribute("number", default=given)})["a"].default == kept
