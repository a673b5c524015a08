"""Who is there: what listeners say of who comes and goes, and who has fallen silent, recorded as events in the log like
any record, so that the cloud hears of it however long the link is down."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from edge.listeners.collector import Collector
from edge.listeners.filling import Owed
from edge.listeners.listener import Listener
from edge.places import Places
from protocols.events import PRESENCE
from protocols.events import Presence as Word
from protocols.messages import Origin, Priority
from protocols.shipment import MessageBatch
from tidegate.logs import get_logger

SILENT_INTERVALS: Final = 5
"""A device is silent after so many of its own intervals: lost packets and a slow network are not silence."""
SILENT_S_MIN: Final = 60.0
"""And never before this: a device that sends every second may well reboot."""
GAPS_REMEMBERED: Final = 8
"""The longest of a device's last pauses is its interval: so one that sends in bursts has that between its bursts."""
GAPS_MIN: Final = 3
"""Pauses that have to be seen before anything is said of a device that does not connect."""
DEVICES_MAX: Final = 20_000
"""Of which presence is known: 400 bytes each. One that is more has none."""
LOOK_S: Final = 5.0
EARLIER_S: Final = 1e-9
"""When a device was there that was so in an earlier run: before all that is known of this one."""

Name = tuple[str, str, str, str]
"""Listener, network, alias key, alias."""

_log = get_logger("edge.presence")


class _Device(msgspec.Struct):
    connections: int = 0
    connects: bool = False
    """It has had a connection."""
    silent: bool = False
    there_s: float = 0.0
    """When it was there last, however that was known; 0: never."""
    heard_s: float = 0.0
    """When it was heard last; 0: never."""
    reachable_s: float = 0.0
    """For how long it is there after it has asked for commands, as long as its own intervals say nothing; 0: it never
    asked."""
    gaps_s: deque[float] = msgspec.field(default_factory=lambda: deque(maxlen=GAPS_REMEMBERED))
    recorded: Word | None = None
    """What was said of it last."""


class PresenceRecorder:
    """What a listener says goes to the collector at once; what the log does not take is said again, as it then is.

    A device that connects is online while it has a connection. One that does not (UDP, CoAP, HTTP, a serial line) is
    online once it asks for its commands, or is heard regularly. All are offline while they are silent.
    """

    def __init__(
        self, collector: Collector, places: Places, monotonic_s: Callable[[], float], came: Callable[[Name], None]
    ) -> None:
        """`came`: told of each device that came, or came back; of one without a connection, each time that it is heard
        or asks for its commands, as it may listen for a moment only."""
        self._collector = collector
        self._places = places
        self._monotonic_s = monotonic_s
        self._came = came
        self._devices: dict[Name, _Device] = {}
        self._unsaid: dict[Name, Word] = {}
        """Not recorded, and not on their way there."""
        self._under_way: dict[bytes, tuple[Name, Word]] = {}
        self._number = 0

    def begin(self, listeners: Sequence[Listener]) -> None:
        """At the start, before anybody is let in: whoever was there when the last run ended is not, until it comes."""
        for listener in listeners:
            name = (listener.name, listener.network_id, "", "")
            self._say(name, Word(False, "the gateway was started again"))

    # from listeners

    def connected(self, listener: str, network_id: str, alias_key: str, alias: str) -> None:
        name = (listener, network_id, alias_key, alias)
        device = self._device(name)
        if device is None:
            return
        device.connections += 1
        device.connects, device.silent = True, False
        self._saw(name, device)
        if not _is_online(device):
            self._note(name, device, Word(True, "connected"))
        self._came(name)

    def disconnected(self, listener: str, network_id: str, alias_key: str, alias: str, reason: str) -> None:
        """One of its connections has ended; `reason` for people: `keep-alive missed`, `disconnected`, …"""
        name = (listener, network_id, alias_key, alias)
        device = self._devices.get(name)
        if device is None:
            return
        device.connections = max(0, device.connections - 1)
        self._saw(name, device)
        if device.connections == 0:
            self._note(name, device, Word(False, reason))

    def reachable(self, listener: str, network_id: str, alias_key: str, alias: str, for_s: float) -> None:
        name = (listener, network_id, alias_key, alias)
        device = self._device(name)
        if device is None:
            return
        device.reachable_s = for_s
        self._hear(name, device)
        if not _is_online(device):
            device.silent = False
            self._note(name, device, Word(True, "asks for commands"))
        self._came(name)

    # from whoever looks for a device

    def there_s(self, name: Name) -> float:
        """When it was there last, by the clock of this; 0: never. One that is connected is there now; one that was
        there before this run began was so before all others."""
        device = self._devices.get(name)
        if device is not None and device.connections:
            return self._monotonic_s()
        if device is not None and device.there_s:
            return device.there_s
        return EARLIER_S if self._places.last(name[1:]) == name[0] else 0.0

    # from the resolver

    def heard(self, batch: MessageBatch, listeners: Sequence[str]) -> None:
        """`listeners`: of each record, by its place."""
        last_of = dict(zip(batch.target_index, batch.record, strict=True))
        for place, record in last_of.items():
            target = batch.targets[place]
            name = (listeners[record], target.network_id, target.alias_key, target.alias)
            device = self._device(name)
            if device is None:
                continue
            self._hear(name, device)
            # What is read of the log may be older than the end of the connection that it came by.
            is_there = device.connections > 0 if device.connects else _silent_after_s(device) > 0
            if is_there and not _is_online(device):
                device.silent = False
                self._note(name, device, Word(True, "heard"))
            if not device.connects:
                self._came(name)

    async def run(self) -> None:
        """Until cancelled: looks for silence, and says again what was not recorded."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()

    def look(self) -> None:
        now_s = self._monotonic_s()
        for name, device in self._devices.items():
            limit_s = _silent_after_s(device)
            if limit_s and not device.silent and now_s - device.heard_s > limit_s and _is_online(device):
                device.silent = True
                reason = f"silent for {now_s - device.heard_s:.0f} s"
                if len(device.gaps_s) >= GAPS_MIN:
                    reason += f", {SILENT_INTERVALS} of its intervals"
                self._note(name, device, Word(False, reason))
        unsaid, self._unsaid = self._unsaid, {}
        for name, word in unsaid.items():
            self._say(name, word)

    # the collector's Waiter

    def recorded(self, owed: Owed) -> None:
        for token in owed.tokens:
            self._under_way.pop(token, None)

    def refused(self, owed: Owed, code: str) -> None:
        for token in owed.tokens:
            name, word = self._under_way.pop(token)
            self._unsaid.setdefault(name, word)

    def _device(self, name: Name) -> _Device | None:
        device = self._devices.get(name)
        if device is None and len(self._devices) < DEVICES_MAX:
            device = self._devices[name] = _Device()
        return device

    def _hear(self, name: Name, device: _Device) -> None:
        before_s, device.heard_s = device.heard_s, self._saw(name, device)
        if before_s:
            device.gaps_s.append(device.heard_s - before_s)

    def _saw(self, name: Name, device: _Device) -> float:
        """Now, which is returned."""
        device.there_s = self._monotonic_s()
        self._places.note(name[1:], name[0])
        return device.there_s

    def _note(self, name: Name, device: _Device, word: Word) -> None:
        device.recorded = word
        self._unsaid.pop(name, None)
        self._say(name, word)

    def _say(self, name: Name, word: Word) -> None:
        listener, network_id, alias_key, alias = name
        origin = Origin(network_id, alias_key, alias, "", PRESENCE, listener, Priority.EVENT)
        self._number += 1
        token = self._number.to_bytes(8, "big")
        self._under_way[token] = name, word
        self._collector.add(origin, [msgspec.json.encode(word)], self, [token])


def _silent_after_s(device: _Device) -> float:
    """0: nobody can tell yet."""
    if len(device.gaps_s) < GAPS_MIN:
        return device.reachable_s
    return max(SILENT_S_MIN, SILENT_INTERVALS * max(device.gaps_s))


def _is_online(device: _Device) -> bool:
    return device.recorded is not None and device.recorded.online
