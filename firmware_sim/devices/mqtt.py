"""A simulated MQTT device, as small firmware is built: it measures, keeps what it measured until the server has
acknowledged it, and connects again for as long as it takes.

Thousands of them run in one process: a device has no task of its own, all share one timer heap, and a message costs
neither task nor await.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Annotated, Final

import msgspec

from firmware_sim.devices.clock import DeviceClock
from firmware_sim.devices.connection import MqttConnection
from firmware_sim.devices.garble import garbled
from firmware_sim.devices.latency import RecentLatencies
from firmware_sim.devices.orders import FILTER, FIRST_PACKET_ID, Orders
from firmware_sim.devices.outbox import Outbox, Outgoing
from firmware_sim.devices.packets import Told, encode_connect, encode_puback, encode_publish, encode_subscribe
from firmware_sim.devices.roster import RosterDevice
from firmware_sim.devices.timers import Timers
from firmware_sim.ledger import LedgerWriter
from firmware_sim.signals import Signal, Value, sample

CONNECTING_MAX: Final = 200
"""Connections being set up at once by one process: a fleet must not exhaust the backlog of a server that comes back."""
STEADY_S: Final = 10.0
"""A connection that held this long, or carried an acknowledgement, was good: the next wait is the shortest again."""
OFF_S: Final = 1.0
"""How long a reboot takes."""


class DeviceSettings(msgspec.Struct, frozen=True):
    """What the devices of a fleet have in common."""

    host: str = "127.0.0.1"
    port: int = 1883
    topic: str = "up"
    qos: Annotated[int, msgspec.Meta(ge=0, le=1)] = 1
    keep_alive_s: int = 30
    """A ping goes out after half of it without traffic (MQTT 3.1.1, 3.1.2.10)."""
    buffer_messages: int = 1000
    """The memory that firmware spares for unsent messages: some 120 kB."""
    window: int = 20
    """Messages in flight; brokers commonly allow 20."""
    obeys: bool = False
    """Subscribes to its commands, runs each once, and answers."""
    recent_messages: int = 0
    """Acknowledged ones that are remembered, for a device that is to send some again although it need not."""
    answer_s: float = 20.0
    """How long a CONNACK, PUBACK or PINGRESP may take."""
    wait_min_s: float = 0.2
    wait_max_s: float = 10.0
    """Before connecting again; doubles with each failure, each wait shortened by up to half at random."""


class Counts:
    """What happened in a fleet so far; `connected` is now."""

    __slots__ = (
        "acknowledged", "connected", "connects", "dropped", "made", "malformed", "rebooted", "refused", "repeated",
        "resent", "sent",
    )  # fmt: skip

    def __init__(self) -> None:
        self.made = self.sent = self.resent = self.acknowledged = self.dropped = 0
        self.malformed = self.repeated = 0
        self.connected = self.connects = self.refused = self.rebooted = 0


class Surroundings:
    """What the devices of one process share."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        ledger: LedgerWriter,
        rng: random.Random,
        wall_ms: Callable[[], int],
    ) -> None:
        self.loop = loop
        self.timers = Timers(loop)
        self.ledger = ledger
        self.rng = rng
        self.wall_ms = wall_ms
        self.counts = Counts()
        self.latencies = RecentLatencies()
        self.connecting = asyncio.Semaphore(CONNECTING_MAX)
        self.tasks: set[asyncio.Task[None]] = set()
        """Connections being set up; the loop itself keeps only weak references."""
        self.refusal = ""
        """Why a server last refused a device."""


class MqttDevice:
    """One device. `switch_on`, then `measure` as often as wanted; nothing of it waits."""

    def __init__(
        self,
        identity: RosterDevice,
        number: int,
        sensors: dict[str, Signal],
        settings: DeviceSettings,
        around: Surroundings,
    ) -> None:
        self.identity = identity
        self.number = number
        """In the ledger."""
        self.outbox = Outbox(messages_max=settings.buffer_messages, window=settings.window)
        self.orders = Orders()
        self._sensors = sensors
        self._settings = settings
        self._around = around
        self._topic = settings.topic.encode()
        self.clock = DeviceClock(around.wall_ms)
        self._since_s = around.timers.now()
        self._recent: deque[Outgoing] = deque(maxlen=settings.recent_messages)
        self._garble_next = 0
        self._held_until_s = 0.0
        self._boot = 0
        self._seq = 0
        self._is_on = False
        self._failures = 0
        self._connection: MqttConnection | None = None

    @property
    def is_idle(self) -> bool:
        """True if nothing waits to be acknowledged."""
        return not len(self.outbox)

    def switch_on(self) -> None:
        """With the boot counter that the ledger holds."""
        self._boot = self._around.ledger.boot(self.number)
        self._seq = 0
        self._is_on = True
        self._connect()

    def switch_off(self) -> None:
        """Says goodbye if it is connected; what is unacknowledged stays in `outbox`."""
        self._is_on = False
        if self._connection is not None:
            self._connection.close()

    def fail_power(self, off_s: float = OFF_S) -> None:
        """Memory is lost, unacknowledged messages with it; after `off_s` the next boot begins."""
        if not self._is_on:
            return
        for message in self.outbox.clear():
            self._drop(message)
        self._recent.clear()
        self._begin_again("power failed", off_s)

    def restart(self, off_s: float = OFF_S) -> None:
        """The firmware starts anew, as after an update or by its watchdog; what is unacknowledged was in flash memory
        and goes on under the boot that it was made in."""
        if self._is_on:
            self._begin_again("firmware restarted", off_s)

    def hold(self, seconds: float) -> None:
        """Sends nothing for so long, and then all of it: a device that saves its radio, or waits for its turn."""
        until_s = self._around.timers.now() + seconds
        self._held_until_s = max(self._held_until_s, until_s)
        self._around.timers.at(until_s, self._send)

    def repeat(self, messages: int) -> int:
        """Sends the messages acknowledged last again, as far as they are remembered and the buffer has room for them;
        how many."""
        again = [message.repeat() for message in self._recent][-messages:] if self._is_on else []
        for place, message in enumerate(again):
            if not self.outbox.has_room:
                again = again[:place]
                break
            self.outbox.add(message)
        self._around.counts.repeated += len(again)
        self._send()
        return len(again)

    def garble(self, messages: int) -> None:
        """Of the next messages so many come out as nothing that can be read."""
        self._garble_next += messages

    def measure(self) -> bool:
        """Reads the sensors once, and sends the message now or when it can; False while it is switched off."""
        if not self._is_on:
            return False
        around = self._around
        self._seq += 1
        now_s = around.timers.now()
        time_ms = self.clock.now_ms()
        values: dict[str, Value] = {"boot": self._boot, "seq": self._seq, "time": time_ms}
        values.update(sample(self._sensors, now_s - self._since_s))
        payload = msgspec.json.encode(values)
        if not self.clock.is_right:
            around.ledger.may_be_filed_under(time_ms)
        if self._garble_next:
            self._garble_next -= 1
            payload = garbled(payload, around.rng)
            around.counts.malformed += 1
            around.ledger.malformed(self.number, self._boot, self._seq)
        message = Outgoing(self._boot, self._seq, payload, now_s)
        around.counts.made += 1
        if self._settings.qos == 0:
            self._send_once(message)
            return True
        dropped = self.outbox.add(message)
        if dropped is not None:
            self._drop(dropped)
        self._send()
        return True

    def went_up(self, connection: MqttConnection) -> None:
        self._around.counts.connected += 1
        self._around.counts.connects += 1
        if self._settings.obeys:
            connection.write(encode_subscribe(FILTER, 1))
            for packet_id, topic, payload in self.orders.unacknowledged():
                connection.write(encode_publish(topic, payload, packet_id=packet_id, again=True))
        self._send()

    def told(self, connection: MqttConnection, told: Told) -> None:
        answer = self.orders.obey(told.topic)
        if told.packet_id:
            connection.write(encode_puback(told.packet_id))
        if answer is not None:
            packet_id, topic, payload = answer
            connection.write(encode_publish(topic, payload, packet_id=packet_id))

    def acknowledged(self, connection: MqttConnection, packet_ids: list[int]) -> None:
        if connection is not self._connection:
            return
        around = self._around
        now_s = around.timers.now()
        self._failures = 0
        for packet_id in packet_ids:
            if packet_id >= FIRST_PACKET_ID:
                self.orders.acknowledged(packet_id)
                continue
            message = self.outbox.acknowledge(packet_id)
            if message is None:
                continue  # of a message that was dropped from a full buffer after its first sending
            if message.is_repeat:
                continue  # acknowledged before, and counted then
            around.ledger.acknowledged(self.number, message.boot, message.seq)
            around.counts.acknowledged += 1
            around.latencies.add(1000 * (now_s - message.made_s))
            self._recent.append(message)
        self._send()

    def waits_since_s(self) -> float | None:
        oldest = self.outbox.oldest_in_flight()
        return None if oldest is None else oldest.sent_s

    def went_down(self, connection: MqttConnection, reason: str, *, refused: bool) -> None:
        around = self._around
        if connection.up_since_s:
            around.counts.connected -= 1
        if refused:
            around.counts.refused += 1
            around.refusal = f"{self.identity.name}: {reason}"
        if connection is not self._connection:
            return
        self._connection = None
        self.outbox.rewind()
        if connection.up_since_s and around.timers.now() - connection.up_since_s > STEADY_S:
            self._failures = 0
        settings = self._settings
        longest_s = min(settings.wait_max_s, settings.wait_min_s * 2.0 ** min(self._failures, 16))
        self._failures += 1
        if self._is_on:
            around.timers.after(longest_s * around.rng.uniform(0.5, 1.0), self._connect)

    def _connect(self) -> None:
        if not self._is_on or self._connection is not None:
            return
        identity, settings = self.identity, self._settings
        connection = self._connection = MqttConnection(
            self,
            encode_connect(
                client_id=identity.name,
                user=identity.user or identity.name,
                password=identity.password,
                keep_alive_s=settings.keep_alive_s,
            ),
            keep_alive_s=settings.keep_alive_s,
            answer_s=settings.answer_s,
            timers=self._around.timers,
            subscribes=settings.obeys,
        )
        task = self._around.loop.create_task(self._open(connection))
        self._around.tasks.add(task)
        task.add_done_callback(self._around.tasks.discard)

    async def _open(self, connection: MqttConnection) -> None:
        host, port = self.identity.host or self._settings.host, self.identity.port or self._settings.port
        try:
            async with self._around.connecting, asyncio.timeout(self._settings.answer_s):
                await self._around.loop.create_connection(lambda: connection, host, port)
        except OSError as error:  # TimeoutError is one
            if connection is self._connection:
                self.went_down(connection, str(error), refused=False)

    def _begin_again(self, reason: str, off_s: float) -> None:
        self._is_on = False
        if self._connection is not None:
            self._connection.abort(reason)
        self._held_until_s = 0.0
        self._around.counts.rebooted += 1
        self._around.ledger.count_boots([self.number])
        self._around.timers.after(off_s, self.switch_on)

    def _send(self) -> None:
        connection = self._connection
        if connection is None or not connection.is_up or self._around.timers.now() < self._held_until_s:
            return
        messages = self.outbox.take()
        if not messages:
            return
        around = self._around
        now_s = around.timers.now()
        packets: list[bytes] = []
        for message in messages:
            message.sent_s = now_s
            again = message.sends > 1 or message.is_repeat
            around.counts.resent += again
            around.ledger.sent(self.number, message.boot, message.seq)
            packets.append(encode_publish(self._topic, message.payload, packet_id=message.packet_id, again=again))
        around.counts.sent += len(packets)
        connection.write(b"".join(packets))

    def _send_once(self, message: Outgoing) -> None:
        """QoS 0: now or never."""
        connection = self._connection
        if connection is None or not connection.is_up or connection.is_congested:
            self._drop(message)
            return
        self._around.ledger.sent(self.number, message.boot, message.seq)
        self._around.counts.sent += 1
        connection.write(encode_publish(self._topic, message.payload))

    def _drop(self, message: Outgoing) -> None:
        if message.is_repeat:
            return  # it was delivered before
        self._around.counts.dropped += 1
        self._around.ledger.dropped(self.number, message.boot, message.seq)
