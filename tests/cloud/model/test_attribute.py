"""Which values fit an attribute, and what becomes of those that can be read as one."""

from __future__ import annotations

import contextlib
import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.model.attribute import Attribute, MisfitError, fitting, name_of, path_of

DAY = datetime.datetime(2026, 3, 1, 8, 30, tzinfo=datetime.UTC)
DAY_MS = int(DAY.timestamp() * 1000)
LEVEL = Attribute("number", minimum=-40, maximum=120)
MODE = Attribute("string", enumeration=("slow", "auto"))


def fit(attribute: Attribute, value: Any) -> Any:
    written = value if isinstance(value, msgspec.Raw) else msgspec.Raw(msgspec.json.encode(value))
    return msgspec.json.decode(fitting(attribute, written))


@pytest.mark.parametrize(
    ("kind", "value", "becomes"),
    [
        ("number", "21.5", 21.5),
        ("number", " -3 ", -3),
        ("number", "1e3", 1000.0),
        ("integer", 21.0, 21),
        ("integer", "21", 21),
        ("integer", "2.1e1", 21),
        ("boolean", "true", True),
        ("boolean", "OFF", False),
        ("boolean", 1, True),
        ("boolean", 0, False),
        ("string", 5551212, "5551212"),
        ("string", msgspec.Raw(b"1.10"), "1.10"),
        ("timestamp", DAY_MS, DAY_MS),
        ("timestamp", str(DAY_MS), DAY_MS),
        ("timestamp", DAY_MS + 0.75, DAY_MS),
        ("timestamp", "2026-03-01T08:30:00Z", DAY_MS),
        ("timestamp", "2026-03-01T09:30:00+01:00", DAY_MS),
        ("timestamp", "2026-03-01 08:30", DAY_MS),
        ("geoposition", [10.7, 59.9], {"lon": 10.7, "lat": 59.9}),
        ("geoposition", [10.7, 59.9, 3], {"lon": 10.7, "lat": 59.9, "alt": 3}),
        ("geoposition", {"latitude": "59.9", "lng": 10.7}, {"lat": 59.9, "lon": 10.7}),
        ("geoposition", {"type": "Point", "coordinates": [10.7, 59.9]}, {"lon": 10.7, "lat": 59.9}),
        ("geoposition", {"lat": 1, "lon": 2, "accuracy": 5}, {"lat": 1, "lon": 2, "accuracy": 5}),
        ("object", {"a": [1]}, {"a": [1]}),
    ],
)
def test_values_are_converted(kind: Any, value: Any, becomes: Any) -> None:
    fits = fit(Attribute(kind), value)
    assert fits == becomes
    assert type(fits) is type(becomes)


@pytest.mark.parametrize(
    ("attribute", "value", "code", "reason"),
    [
        (LEVEL, 900, "range", "900 is above the maximum 120"),
        (LEVEL, "-40.5", "range", '"-40.5" is below the minimum -40'),
        (LEVEL, "warm", "type", '"warm" is no number'),
        (LEVEL, "NaN", "type", '"NaN" is no number'),
        (LEVEL, "Infinity", "type", '"Infinity" is no number'),
        (LEVEL, "1e999", "type", '"1e999" is no number'),
        (LEVEL, "1_000", "type", '"1_000" is no number'),
        (LEVEL, "21,5", "type", '"21,5" is no number'),
        (LEVEL, msgspec.Raw(b"1e999"), "type", "1e999 cannot be read"),
        (LEVEL, True, "type", "true is no number"),
        (LEVEL, [1], "type", "[1] is no number"),
        (LEVEL, "x" * 500, "type", '"' + "x" * 59 + "… is no number"),
        (Attribute("integer"), 21.5, "type", "21.5 is no whole number"),
        (Attribute("integer"), msgspec.Raw(b"9223372036854775808"), "range", "9223372036854775808 is beyond 64 bits"),
        (Attribute("boolean"), "maybe", "type", '"maybe" is no boolean'),
        (Attribute("boolean"), 2, "type", "2 is no boolean"),
        (Attribute("string"), True, "type", "true is no string"),
        (MODE, "fast", "enumeration", '"fast" is none of "slow", "auto"'),
        (Attribute("number", enumeration=(1, 2.5)), 2, "enumeration", "2 is none of 1, 2.5"),
        (Attribute("timestamp"), "soon", "type", '"soon" is no timestamp (Unix milliseconds or ISO 8601)'),
        (Attribute("timestamp"), 10**18, "range", f"{10**18} is outside the years 1 to 9999"),
        (Attribute("geoposition"), [59.9], "type", "[59.9] is no geoposition ({lat, lon} or [lon, lat])"),
        (Attribute("geoposition"), [10.7, 91], "range", "lat 91 is beyond 90 degrees"),
        (Attribute("geoposition"), {"lat": True, "lon": 0}, "type", '{"lat":true,"lon":0} is no geoposition'),
        (Attribute("object"), [1], "type", "[1] is no object"),
    ],
)
def test_what_does_not_fit_says_why(attribute: Attribute, value: Any, code: str, reason: str) -> None:
    with pytest.raises(MisfitError) as caught:
        fit(attribute, value)
    assert caught.value.code == code
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize("attribute", [LEVEL, MODE, Attribute("geoposition"), Attribute("object")])
def test_null_fits_everywhere(attribute: Attribute) -> None:
    assert fit(attribute, None) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8) | st.sampled_from(["1", "-2.5", "true", "off", "2026-03-01", "1e400", "NaN", "٣"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["lat", "lon", "lng", "alt", "type", "coordinates"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
attributes = st.builds(
    Attribute, st.sampled_from(["string", "number", "integer", "boolean", "timestamp", "geoposition", "object"])
) | st.sampled_from([LEVEL, MODE, Attribute("integer", maximum=7), Attribute("number", enumeration=(1, 2.5))])


@given(attributes, json_values)
def test_whatever_comes_is_refused_or_fits_for_good(attribute: Attribute, value: Any) -> None:
    written = msgspec.Raw(msgspec.json.encode(value))
    with contextlib.suppress(MisfitError):
        fits = fitting(attribute, written)
        assert fitting(attribute, fits) is fits


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=8), min_size=1, max_size=5
    )
)
def test_names_are_paths_and_back(path: list[str]) -> None:
    assert path_of(name_of(path)) == tuple(path)
