"""Simulated devices: each publishes under QoS 1, sends again what has no answer, and knows what was acknowledged."""

from __future__ import annotations

import enum
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from edge.listeners.filling import Owed, Waiter
from protocols.messages import Origin, Priority
from tests.worlds.clocks import true_ms
from tests.worlds.loop import SimulatedLoop

KEYED: Final = "keyed"
PLAIN: Final = "plain"
GARBLED: Final = "garbled"
"""Networks."""
IN_FLIGHT_MAX: Final = 8
"""Messages of one device without an answer."""
SILENT_S: Final = 20.0
"""A device that waits longer for an answer connects again."""

Name = tuple[str, int]
"""A device and the number of a message of it."""


class Kind(enum.Enum):
    TELEMETRY = "telemetry"
    EVENT = "event"
    ALARM = "alarm"
    KEYED = "keyed"
    LATE = "late"
    """Unknown at first; registered while messages of it wait."""
    STRANGER = "stranger"
    """Never registered."""
    GARBLED = "garbled"
    """Every third payload does not decode, until its network's codec is mended."""
    STOPPED = "stopped"
    """Its route goes nowhere."""
    OWN = "own"
    """A process of the user's own (publisher.py)."""


class Listener(Protocol):
    """A gateway as its devices find it."""

    def receive(self, origin: Origin, payloads: list[bytes], waiter: Waiter, tokens: Sequence[bytes]) -> None:
        """A read of a connection."""
        ...

    def acknowledged(self, names: list[Name]) -> None:
        """Told when the answer leaves the gateway."""
        ...


class Device:
    def __init__(
        self,
        loop: SimulatedLoop,
        rng: random.Random,
        name: str,
        kind: Kind,
        *,
        messages: int,
        until_s: float,
        network_id: str,
    ) -> None:
        self.name = name
        self.kind = kind
        self.acknowledged: set[int] = set()
        self.arrived: Counter[int] = Counter()
        """How often a message came to a gateway, by number."""
        self.published = 0
        self.messages = messages
        priority = {Kind.ALARM: Priority.ALARM, Kind.EVENT: Priority.EVENT}.get(kind, Priority.TELEMETRY)
        self.origin = Origin(network_id, "serial", name, f"up/{name}", "", "mqtt", priority)
        self._loop = loop
        self._random = rng
        self._pause_s = until_s / messages
        self._waiting: dict[int, bytes] = {}
        """By number: without an answer, in the order they were made."""
        self._sent: set[int] = set()
        """Of them, what went out over this session."""
        self._session: Session | None = None
        self._heard_s = 0.0
        self.listener: Callable[[], Listener | None] = lambda: None
        self._has_clock = rng.random() < 0.5
        self._noise = rng.choice((0, 0, 20, 100))
        """Bytes that do not compress, in each message."""
        loop.outside(rng.random() * self._pause_s, self._make)
        loop.outside(rng.random(), self._live)

    @property
    def done(self) -> bool:
        return self.published == self.messages and not self._waiting

    def _make(self) -> None:
        """A few new messages, a while after the last ones."""
        count = min(self._random.choice((1, 1, 2, 3, 5)), self.messages - self.published)
        for _ in range(count):
            number = self.published
            self.published += 1
            self._waiting[number] = self._payload(number)
        if self.published < self.messages:
            self._loop.outside(self._random.random() * 2 * count * self._pause_s, self._make)
        if self._session is not None:
            self._session.send()

    def _payload(self, number: int) -> bytes:
        body: dict[str, object] = {"d": self.name, "n": number, "boot": 1, "seq": number}
        if self._noise:
            body["v"] = self._random.randbytes(self._noise).hex()
        if self._has_clock:
            body["time"] = true_ms(self._loop.now)
        if self.kind is Kind.GARBLED and number % 3 == 0:
            body["time"] = "soon"
        return json.dumps(body).encode()

    def _live(self) -> None:
        """Connects where there is no session, and gives one up that does not answer."""
        session = self._session
        if session is not None and self._sent and self._loop.now > self._heard_s + SILENT_S:
            session.over = True
            session = self._session = None
        if session is None and self._waiting:
            listener = self.listener()
            if listener is not None:
                self._session = Session(self, listener)
                self._sent.clear()
                self._heard_s = self._loop.now
                self._session.send()
        self._loop.outside(0.5 + self._random.random(), self._live)

    def lost(self, session: Session) -> None:
        if session is self._session:
            self._session = None

    def next_burst(self) -> list[tuple[int, bytes]]:
        room = IN_FLIGHT_MAX - len(self._sent)
        burst: list[tuple[int, bytes]] = []
        for number, payload in self._waiting.items():
            if len(burst) >= room:
                break
            if number not in self._sent:
                burst.append((number, payload))
        self._sent.update(number for number, _ in burst)
        return burst

    def answered(self, numbers: list[int]) -> None:
        self._heard_s = self._loop.now
        for number in numbers:
            self.acknowledged.add(number)
            self._waiting.pop(number, None)
            self._sent.discard(number)


class Session:
    """A device's connection to one run of the gateway; the Waiter of edge/listeners/filling.py."""

    def __init__(self, device: Device, listener: Listener) -> None:
        self.over = False
        self._device = device
        self._listener = listener
        self._loop = device._loop

    def send(self) -> None:
        burst = self._device.next_burst()
        if burst:
            self._loop.outside(0.001 + 0.02 * self._device._random.random(), self._arrive, burst)

    def _arrive(self, burst: list[tuple[int, bytes]]) -> None:
        if self.over or self._device.listener() is not self._listener:
            self._end()
            return
        self._device.arrived.update(number for number, _ in burst)
        tokens = [str(number).encode() for number, _ in burst]
        self._listener.receive(self._device.origin, [payload for _, payload in burst], self, tokens)

    def recorded(self, owed: Owed) -> None:
        numbers = list(map(int, owed.tokens))
        self._listener.acknowledged([(self._device.name, number) for number in numbers])
        # The answer is lost where the session is over by the time it gets there, and now and then anyway.
        self._loop.outside(0.001 + 0.02 * self._device._random.random(), self._answered, numbers)

    def refused(self, owed: Owed, code: str) -> None:
        self._end()

    def _answered(self, numbers: list[int]) -> None:
        if self.over:
            return
        if self._device._random.random() < 0.01:
            self._end()
            return
        self._device.answered(numbers)
        self.send()

    def _end(self) -> None:
        self.over = True
        self._device.lost(self)


def name_of(payload: bytes) -> Name:
    """The message that a record's payload is."""
    body = json.loads(payload)
    return body["d"], body["n"]
