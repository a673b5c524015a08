"""Messages by their devices' blueprints: what does not fit is left out, all else stays."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cloud.model.attribute import Attribute, path_of
from cloud.model.fitting import MISFITS_MAX, TOLD_BYTES_MAX, Fitted, Model, model_of, untold
from protocols.shipment import Misfit
from tests.cloud.model.test_attribute import attributes, json_values

PUMP = Model(
    {
        "temperature": Attribute("number", maximum=120),
        "on": Attribute("boolean"),
        "meta": Attribute("object"),
        "meta.serial": Attribute("string"),
        "gps.fix.hdop": Attribute("number", minimum=0),
        "a\\.b": Attribute("integer"),
        "debug": Attribute("string", history=False),
        "net.rssi": Attribute("number", history=False),
    }
)


def fit(data: bytes) -> Fitted:
    fitted = PUMP.fit(data)
    assert fitted is not None
    return fitted


def test_what_fits_is_not_touched() -> None:
    for data in (
        b"{}",
        b'{"temperature": 21.50, "on":true,"meta":{"serial":"x","fw":1e2},"gps":{"fix":{"hdop":1}},"a.b":3}',
        b'{"temperature":null,"unnamed":{"x":[1e999]},"gps":7,"net":{"up":true}}',
        b'{"gps":{"fix":null},"meta":null}',
    ):
        assert PUMP.fit(data) is None


def test_what_does_not_fit_is_left_out_and_the_rest_stays() -> None:
    assert fit(b'{"temperature":900,"unnamed":1.50,"on":"on"}') == Fitted(
        b'{"unnamed":1.50,"on":true}',
        b"",
        (Misfit("temperature", "range", "temperature: 900 is above the maximum 120", "900"),),
    )
    assert fit(b'{"temperature":"hot"}').data == b"{}"


def test_parts_have_their_own_attributes() -> None:
    fitted = fit(b'{"meta":{"serial":17,"fw":1e2},"gps":{"fix":{"hdop":-1,"sats":9}},"a.b":"4"}')
    assert fitted.data == b'{"meta":{"serial":"17","fw":1e2},"gps":{"fix":{"sats":9}},"a.b":4}'
    assert [misfit.reason for misfit in fitted.misfits] == ["gps.fix.hdop: -1 is below the minimum 0"]
    assert [misfit.attribute for misfit in fit(b'{"a.b":{}}').misfits] == ["a\\.b"]


def test_an_object_that_is_none_is_left_out_whole() -> None:
    assert [misfit.attribute for misfit in fit(b'{"meta":[1]}').misfits] == ["meta"]


def test_what_history_does_not_keep_is_apart() -> None:
    assert fit(b'{"debug":"x","temperature":1,"net":{"rssi":"-70","up":true}}') == Fitted(
        b'{"temperature":1,"net":{"up":true}}', b'{"debug":"x","net":{"rssi":-70,"up":true}}', ()
    )
    assert fit(b'{"debug":null}') == Fitted(b"{}", b'{"debug":null}', ())
    assert fit(b'{"debug":[]}').current_only == b""


def test_what_is_told_of_one_message_is_bounded() -> None:
    model = Model({f"a{n}": Attribute("number") for n in range(MISFITS_MAX + 5)})
    fitted = model.fit(msgspec.json.encode({f"a{n}": "x" * 1000 for n in range(MISFITS_MAX + 5)}))
    assert fitted is not None
    assert fitted.data == b"{}"
    assert sum(misfit.count for misfit in fitted.misfits) == MISFITS_MAX + 5
    assert fitted.misfits[-1] == Misfit("", "more", "and 5 more attributes of this message", "", 5)
    assert {len(misfit.value) for misfit in fitted.misfits[:-1]} == {TOLD_BYTES_MAX}


def test_a_blueprint_without_attributes_has_no_model() -> None:
    assert model_of("{}") is None
    assert model_of('{"a":{"type":"number"}}') is model_of('{"a":{"type":"number"}}')


def test_names_that_are_no_paths_are_names() -> None:
    """As they were not looked at in earlier versions."""
    model = Model({"a..b": Attribute("number")})
    assert model.fit(b'{"a..b":"1"}') == Fitted(b'{"a..b":1}', b"", ())


def test_defaults_stand_for_what_was_not_told() -> None:
    declared = {"a": Attribute("number", default=1), "m.x": Attribute("string", default="d"), "b": Attribute("string")}
    assert untold({}, declared) == {"a": 1, "m.x": "d"}
    assert untold({"a": b"5", "m": b'{"x":null}'}, declared) == {"m.x": "d"}
    assert untold({"a": b"null", "m": b'{"x":"y"}'}, declared) == {"a": 1}


names = st.sampled_from(["a", "b", "c.d", "c.e.f", "g\\.h"])
objects = st.dictionaries(st.sampled_from(["a", "b", "c", "d", "e", "f", "g.h"]), json_values, max_size=5)
nested = st.builds(lambda top, c: top | {"c": c}, objects, json_values | objects)


@given(st.dictionaries(names, attributes, max_size=5), nested)
def test_whatever_comes_the_rest_stays_and_what_is_kept_fits(declared: dict[str, Attribute], message: Any) -> None:
    model = Model(declared)
    data = msgspec.json.encode(message)
    fitted = model.fit(data)
    if fitted is None:
        return
    kept = msgspec.json.decode(fitted.data)
    for name, value in message.items():
        if all(path_of(attribute)[0] != name for attribute in declared):
            assert kept[name] == value
    again = model.fit(fitted.data)
    assert again is None, "what is kept fits, as it is"


@given(st.dictionaries(names, attributes, max_size=5), nested)
def test_the_quick_look_and_the_full_one_agree(declared: dict[str, Attribute], message: Any) -> None:
    model = Model(declared)
    data = msgspec.json.encode(message)
    if model.fit(data) is None:
        assert model._changed(data) is None
