"""What the devices of a fleet have in common, and what those of one process share."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Annotated, Final

import msgspec

from firmware_sim.devices.latency import RecentLatencies
from firmware_sim.devices.modbus_port import ModbusPort
from firmware_sim.devices.timers import Timers
from firmware_sim.ledger import LedgerWriter

CONNECTING_MAX: Final = 200
"""Connections being set up at once by one process: a fleet must not exhaust the backlog of a server that comes back."""


class DeviceSettings(msgspec.Struct, frozen=True):
    """What the devices of a fleet have in common."""

    host: str = "127.0.0.1"
    port: int = 0
    """Of devices that name none; 0: the usual one of their protocol."""
    topic: str = "up"
    """MQTT."""
    qos: Annotated[int, msgspec.Meta(ge=0, le=1)] = 1
    """MQTT."""
    keep_alive_s: int = 30
    """MQTT: a ping goes out after half of it without traffic (MQTT 3.1.1, 3.1.2.10)."""
    buffer_messages: int = 1000
    """The memory that firmware spares for unsent messages: some 120 kB."""
    window: int = 20
    """Messages in flight, where the protocol allows several; brokers commonly allow 20."""
    obeys: bool = False
    """Listens to commands, runs each once, and answers."""
    recent_messages: int = 0
    """Acknowledged ones that are remembered, for a device that is to send some again although it need not."""
    answer_s: float = 20.0
    """How long the answer to anything may take on a connection: longer means that it is dead."""
    resend_s: float = 2.0
    """UDP, serial: how long an answer is waited for before the same is sent again."""
    wait_min_s: float = 0.2
    wait_max_s: float = 10.0
    """Before connecting again; doubles with each failure, each wait shortened by up to half at random."""


class Counts:
    """What happened in a fleet so far; `connected` is now."""

    __slots__ = (
        "acknowledged", "connected", "connects", "dropped", "made", "malformed", "rebooted", "refused", "repeated",
        "resent", "sent", "unread",
    )  # fmt: skip

    def __init__(self) -> None:
        self.made = self.sent = self.resent = self.acknowledged = self.dropped = self.unread = 0
        self.malformed = self.repeated = 0
        self.connected = self.connects = self.refused = self.rebooted = 0


class Runtime:
    """What carriers need of their process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rng: random.Random) -> None:
        self.loop = loop
        self.rng = rng
        self.timers = Timers(loop)
        self.modbus_ports: dict[tuple[str, int], ModbusPort] = {}
        """By address: units may share one."""


class Surroundings(Runtime):
    """What the devices of one process share."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        ledger: LedgerWriter,
        rng: random.Random,
        wall_ms: Callable[[], int],
    ) -> None:
        super().__init__(loop, rng)
        self.ledger = ledger
        self.wall_ms = wall_ms
        self.counts = Counts()
        self.latencies = RecentLatencies()
        self.connecting = asyncio.Semaphore(CONNECTING_MAX)
        self.tasks: set[asyncio.Task[None]] = set()
        """Connections being set up; the loop itself keeps only weak references."""
        self.refusal = ""
        """Why a server last refused a device."""
