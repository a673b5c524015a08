from __future__ import annotations

import msgspec
import pytest

from edge.status.latest import ATTRIBUTES_MAX, DEVICES_MAX, ROWS_MAX, VALUE_BYTES_MAX, DeviceValues, LatestValues
from tests.edge.status.messages import NOW_MS, resolved


def values(device: DeviceValues) -> dict[str, object]:
    return {name: msgspec.json.decode(bytes(value.value)) for name, value in device.values.items()}


@pytest.fixture
def latest() -> LatestValues:
    return LatestValues()


def test_each_attribute_has_its_own_latest(latest: LatestValues) -> None:
    latest.add(*resolved(("pump", b'{"temperature":1,"pressure":2}'), ("pump", b'{"temperature":3}')))
    (device,) = latest.devices()
    assert values(device) == {"temperature": 3, "pressure": 2}
    assert (device.alias, device.device_id, device.blueprint, device.messages) == ("pump", 1, "pump", 2)
    assert device.received_time == NOW_MS + 1


def test_late_data_never_replaces_a_newer_value(latest: LatestValues) -> None:
    latest.add(*resolved(("pump", b'{"temperature":1,"time":%d}' % NOW_MS)))
    latest.add(*resolved(("pump", b'{"temperature":2,"time":%d}' % (NOW_MS - 60_000)), at_ms=NOW_MS + 10, first_seq=1))
    (device,) = latest.devices()
    assert values(device)["temperature"] == 1
    assert device.messages == 2


def test_how_long_a_device_is_quiet_does_not_depend_on_what_clocks_say() -> None:
    now_s = 50.0
    latest = LatestValues(lambda: now_s)
    for number, at_ms in enumerate((NOW_MS, 0, 4 * NOW_MS, 5_000)):
        latest.add(*resolved(("pump", b'{"n":1}'), at_ms=at_ms, first_seq=number))
    now_s += 2.5
    (device,) = latest.devices()
    assert (device.quiet_ms, device.received_time) == (2_500, 5_000)


def test_a_device_has_its_listener_its_rate_and_its_last_error() -> None:
    now_s = 50.0
    latest = LatestValues(lambda: now_s)
    latest.add(*resolved(("pump", b'{"n":1}'), ("pump", b'{"n":')))
    (device,) = latest.devices()
    assert (device.per_min, device.rejected) == (None, 1)
    assert device.last_error.startswith("undecodable: ")
    for number in range(1, 61):
        now_s += 10.0
        latest.add(*resolved(("pump", b'{"n":1}'), first_seq=number, listener="coap"))
    (device,) = latest.devices()
    assert device.listener == "coap"
    assert device.per_min == pytest.approx(6, rel=0.05)
    assert (device.messages, device.rejected) == (61, 1)


def test_a_device_that_only_sends_rubbish_is_heard(latest: LatestValues) -> None:
    latest.add(*resolved(("stranger", b"x"), ("stranger", b"y")))
    (device,) = latest.devices()
    assert (device.alias, device.messages, device.rejected, device.values) == ("stranger", 0, 2, {})


def test_unknown_devices_are_shown_as_such(latest: LatestValues) -> None:
    latest.add(*resolved(("stranger", b'{"n":1}')))
    assert [(device.alias, device.device_id) for device in latest.devices()] == [("stranger", 0)]


def test_those_that_spoke_last_come_first(latest: LatestValues) -> None:
    for number, alias in enumerate(("a", "b", "a")):
        latest.add(*resolved((alias, b'{"n":1}'), first_seq=number))
    assert [device.alias for device in latest.devices()] == ["a", "b"]


def test_everything_has_a_bound(latest: LatestValues) -> None:
    for number in range(DEVICES_MAX + 3):
        latest.add(*resolved((f"d{number}", b'{"n":1}'), first_seq=number))
    assert len(latest.devices()) == DEVICES_MAX
    assert latest.forgotten == 3
    many = msgspec.json.encode({f"a{number}": number for number in range(ATTRIBUTES_MAX + 1)})
    latest.add(*resolved(("wide", many), ("long", msgspec.json.encode({"text": "å" * VALUE_BYTES_MAX}))))
    long, wide = latest.devices()[:2]
    assert len(wide.values) == ATTRIBUTES_MAX
    assert wide.is_cut
    assert len(bytes(long.values["text"].value)) <= VALUE_BYTES_MAX + 16
    assert str(values(long)["text"]).endswith("…")


def test_of_a_catch_up_the_newest_are_looked_at(latest: LatestValues) -> None:
    latest.add(*resolved(*(("pump", b'{"n":%d}' % number) for number in range(10 * ROWS_MAX))))
    (device,) = latest.devices()
    assert values(device) == {"n": 10 * ROWS_MAX - 1}
    assert device.messages == 10 * ROWS_MAX
