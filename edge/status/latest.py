"""The latest values of the devices that this gateway hears, in memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import msgspec

from protocols.shipment import HISTORY_ONLY, MessageBatch, Target

DEVICES_MAX: Final = 500
"""A page of them; the one that was quiet the longest makes room. The cloud shows all."""

ATTRIBUTES_MAX: Final = 32
"""Of one device; later ones are left out, and the device is marked."""

VALUE_BYTES_MAX: Final = 128
"""Of one value as JSON; a longer one is cut and shown as text. With the bounds above: 5 MB at most."""

ROWS_MAX: Final = 16
"""Messages of one device in one batch that are looked at: the newest. During a catch-up a batch holds hundreds of one
device, and what they say is soon said again."""

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
    received_time: int
    """Of its last message."""
    quiet_ms: int
    """How long ago that was seen here, whatever clocks say."""
    messages: int
    """Since it is listed here."""
    is_cut: bool
    """It has more attributes than are kept."""
    values: dict[str, Value]


class _Device:
    __slots__ = ("attributes", "heard_s", "is_cut", "messages", "received_time", "target")

    def __init__(self) -> None:
        self.target: Target
        self.attributes: dict[str, tuple[_When, bytes]] = {}
        self.received_time = 0
        self.heard_s = 0.0
        self.messages = 0
        self.is_cut = False


class LatestValues:
    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self.forgotten = 0
        """Devices that made room since the start."""
        self._monotonic_s = monotonic_s
        self._devices: dict[tuple[str, str, str], _Device] = {}  # those that were quiet the longest first

    def add(self, batch: MessageBatch) -> None:
        rows_of: dict[int, list[int]] = {}
        for row, place in enumerate(batch.target_index):
            rows_of.setdefault(place, []).append(row)
        for place, rows in rows_of.items():
            target = batch.targets[place]
            name = (target.network_id, target.alias_key, target.alias)
            device = self._devices.pop(name, None) or self._room()
            self._devices[name] = device
            device.target = target
            device.messages += len(rows)
            device.received_time, device.heard_s = batch.received_time[rows[-1]], self._monotonic_s()
            for row in rows[-ROWS_MAX:]:
                _take(device, batch, row)

    def devices(self) -> list[DeviceValues]:
        """Those that spoke last come first."""
        return [_shown(device, self._monotonic_s()) for device in reversed(self._devices.values())]

    def _room(self) -> _Device:
        if len(self._devices) >= DEVICES_MAX:
            del self._devices[next(iter(self._devices))]
            self.forgotten += 1
        return _Device()


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


def _shown(device: _Device, now_s: float) -> DeviceValues:
    target = device.target
    return DeviceValues(
        network=target.network_id,
        alias_key=target.alias_key,
        alias=target.alias,
        device_id=target.device_id,
        blueprint=target.blueprint_id,
        received_time=device.received_time,
        quiet_ms=round(1000 * (now_s - device.heard_s)),
        messages=device.messages,
        is_cut=device.is_cut,
        values={
            name: Value(msgspec.Raw(value), when[0], when[1])
            for name, (when, value) in sorted(device.attributes.items())
        },
    )
