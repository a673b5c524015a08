"""The devices that this gateway hears, in memory: how often, by which listener, and their latest values."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from edge.rate import Rate
from protocols.shipment import HISTORY_ONLY, MessageBatch

DEVICES_MAX: Final = 500
"""A page of them; the one that was quiet the longest makes room. The cloud shows all."""

ATTRIBUTES_MAX: Final = 32
"""Of one device; later ones are left out, and the device is marked."""

VALUE_BYTES_MAX: Final = 128
"""Of one value as JSON; a longer one is cut and shown as text. With the bounds above: 5 MB at most."""

ROWS_MAX: Final = 16
"""Messages of one device in one batch that are looked at: the newest. During a catch-up a batch holds hundreds of one
device, and what they say is soon said again."""

RATE_OVER_S: Final = 300.0
"""A device's rate is a mean over about this time: many devices speak once a minute."""

RATE_AFTER_S: Final = 10.0
"""Before that, nobody can tell."""

_decode: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_When = tuple[int, int, bytes]
"""Event time, received time, message id: what *latest* goes by."""


class Value(msgspec.Struct, frozen=True):
    value: msgspec.Raw
    """JSON."""
    event_time: int
    received_time: int


class DeviceValues(msgspec.Struct, frozen=True):
    network: str
    alias_key: str
    alias: str
    device_id: int
    """0: the registry does not know it."""
    blueprint: str
    listener: str
    """That took its last message."""
    received_time: int
    """Of its last message."""
    quiet_ms: int
    """How long ago that was seen here, whatever clocks say."""
    messages: int
    """Since it is listed here."""
    per_min: float | None
    """Messages a minute, lately; None: it is not heard for long enough to tell."""
    rejected: int
    """Records that do not decode, since it is listed here."""
    last_error: str
    """Code and reason of the last of them."""
    is_cut: bool
    """It has more attributes than are kept."""
    values: dict[str, Value]


class DevicesHeard(msgspec.Struct, frozen=True):
    devices: list[DeviceValues]
    """Those that spoke last come first."""
    forgotten: int
    """Devices that made room since the start."""


class _Device:
    __slots__ = (
        "attributes",
        "blueprint",
        "device_id",
        "first_s",
        "heard_s",
        "is_cut",
        "last_error",
        "listener",
        "messages",
        "rate",
        "received_time",
        "rejected",
    )

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self.device_id = 0
        self.blueprint = ""
        self.listener = ""
        self.attributes: dict[str, tuple[_When, bytes]] = {}
        self.received_time = 0
        self.first_s = self.heard_s = monotonic_s()
        self.messages = 0
        self.rate = Rate(monotonic_s, RATE_OVER_S)
        self.rejected = 0
        self.last_error = ""
        self.is_cut = False


class LatestValues:
    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self.forgotten = 0
        """Devices that made room since the start."""
        self._monotonic_s = monotonic_s
        self._devices: dict[tuple[str, str, str], _Device] = {}  # those that were quiet the longest first

    def add(self, batch: MessageBatch, listeners: Sequence[str]) -> None:
        """`listeners`: of each record, by its place."""
        rows_of: dict[int, list[int]] = {}
        for row, place in enumerate(batch.target_index):
            rows_of.setdefault(place, []).append(row)
        for place, rows in rows_of.items():
            target = batch.targets[place]
            device = self._heard(target.network_id, target.alias_key, target.alias)
            device.rate.add(len(rows) if device.messages else len(rows) - 1)  # from the first on, others are counted
            device.device_id, device.blueprint = target.device_id, target.blueprint_id
            device.messages += len(rows)
            device.received_time, device.listener = batch.received_time[rows[-1]], listeners[batch.record[rows[-1]]]
            for row in rows[-ROWS_MAX:]:
                _take(device, batch, row)
        for reject in batch.rejects:
            if reject.alias:  # else nobody knows whose it is
                device = self._heard(reject.network_id, reject.alias_key, reject.alias)
                device.rejected += 1
                device.last_error = f"{reject.code}: {reject.detail}"
                device.received_time, device.listener = reject.received_time, listeners[reject.record]

    def devices(self) -> list[DeviceValues]:
        """Those that spoke last come first."""
        return [_shown(name, device, self._monotonic_s()) for name, device in reversed(self._devices.items())]

    def _heard(self, network_id: str, alias_key: str, alias: str) -> _Device:
        name = (network_id, alias_key, alias)
        device = self._devices.pop(name, None) or self._room()
        self._devices[name] = device
        device.heard_s = self._monotonic_s()
        return device

    def _room(self) -> _Device:
        if len(self._devices) >= DEVICES_MAX:
            del self._devices[next(iter(self._devices))]
            self.forgotten += 1
        return _Device(self._monotonic_s)


def _take(device: _Device, batch: MessageBatch, row: int) -> None:
    received_time = batch.received_time[row]
    if batch.flags[row] & HISTORY_ONLY:
        return
    when = (batch.event_time[row], received_time, batch.ids[16 * row : 16 * row + 16])
    attributes = device.attributes
    for name, value in _decode(batch.data[row]).items():
        held = attributes.get(name)
        if held is None and len(attributes) >= ATTRIBUTES_MAX:
            device.is_cut = True
        elif held is None or held[0] < when:
            attributes[name] = when, _short(bytes(value))


def _short(value: bytes) -> bytes:
    if len(value) <= VALUE_BYTES_MAX:
        return value
    return msgspec.json.encode(value[: VALUE_BYTES_MAX - 8].decode(errors="ignore") + "…")


def _shown(name: tuple[str, str, str], device: _Device, now_s: float) -> DeviceValues:
    network, alias_key, alias = name
    can_tell = device.messages > 1 and now_s - device.first_s >= RATE_AFTER_S
    return DeviceValues(
        network=network,
        alias_key=alias_key,
        alias=alias,
        device_id=device.device_id,
        blueprint=device.blueprint,
        listener=device.listener,
        received_time=device.received_time,
        quiet_ms=round(1000 * (now_s - device.heard_s)),
        messages=device.messages,
        per_min=round(60 * device.rate.per_s(), 2) if can_tell else None,
        rejected=device.rejected,
        last_error=device.last_error,
        is_cut=device.is_cut,
        values={
            name: Value(msgspec.Raw(value), when[0], when[1])
            for name, (when, value) in sorted(device.attributes.items())
        },
    )
