"""Which blueprint is suggested for a payload, and what one is made from."""

from __future__ import annotations

import msgspec
import pytest

from cloud.model.attribute import Attribute, AttributeType
from cloud.model.suggestion import ATTRIBUTES_MAX, Suggestion, drafted, plain_title, suggested


def blueprint(id_: str, **types: AttributeType) -> tuple[str, dict[str, Attribute]]:
    return id_, {name: Attribute(type_) for name, type_ in types.items()}


PUMP = blueprint("pump", temperature="number", pressure="number", running="boolean")
TANK = blueprint("tank", temperature="number", level="number")
ODD = blueprint("odd", temperature="string", pressure="number", running="boolean")


def test_the_one_that_names_most_is_suggested_and_none_that_contradicts() -> None:
    assert suggested(b'{"temperature":7,"pressure":1.5}', [TANK, ODD, PUMP]) == Suggestion("pump", 2, 2)
    assert suggested(b'{"temperature":7,"other":"x"}', [PUMP, TANK]) == Suggestion("tank", 1, 2), "the smaller"
    assert suggested(b'{"temperature":"warm"}', [PUMP, TANK]) is None
    assert suggested(b'{"temperature":null,"level":2}', [PUMP, TANK]) == Suggestion("tank", 2, 2)
    assert suggested(b'{"other":1}', [PUMP, TANK]) is None
    assert suggested(b"{}", [PUMP]) is None
    nested = ("nested", {"meta.serial": Attribute("string")})
    assert suggested(b'{"meta":{"serial":"x"}}', [PUMP, nested]) == Suggestion("nested", 1, 1)


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (b"true", "boolean"),
        (b"7", "number"),
        (b"7.5", "number"),
        (b'"x"', "string"),
        (b'"2026-02-02T02:40:00Z"', "timestamp"),
        (b'"2026-02-02"', "string"),
        (b'{"lat":1,"lon":2}', "geoposition"),
        (b'{"a":1}', "object"),
    ],
)
def test_a_blueprint_is_made_from_values(value: bytes, type_: AttributeType) -> None:
    data = b'{"a.b":%s}' % value
    made = drafted(data)
    assert made == {"a\\.b": Attribute(type_)}
    assert suggested(data, [("b", made)]) == Suggestion("b", 1, 1), "and fits what it was made from"


def test_what_says_nothing_or_cannot_be_named_is_left_out() -> None:
    data = {"a": None, "": 1, "b\0": 1, "$metadata": {}, "é" * 65: 1, "list": [1]}
    assert drafted(msgspec.json.encode(data)) == {}
    assert len(drafted(msgspec.json.encode({f"a{n}": n for n in range(1000)}))) == ATTRIBUTES_MAX


def test_a_title_is_printable() -> None:
    assert plain_title("a\0b\n") == "ab"
    assert plain_title("\0") == "device"
    assert len(plain_title("x" * 1000)) == 200
