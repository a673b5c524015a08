"""A simulated device, as small firmware is built: it measures, keeps what it measured until the gateway has
acknowledged it, and connects again for as long as it takes. What it speaks is its carrier's (carriers/).

Thousands of them run in one process: a device has no task of its own, all share one timer heap, and a message costs
neither task nor await.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

import msgspec

from firmware_sim.devices.carriers import CARRIERS
from firmware_sim.devices.carriers.carrier import Carrier
from firmware_sim.devices.clock import DeviceClock
from firmware_sim.devices.garble import garbled
from firmware_sim.devices.orders import FIRST_PACKET_ID, Answer, Orders
from firmware_sim.devices.outbox import Outbox, Outgoing
from firmware_sim.devices.register_map import RegisterMap
from firmware_sim.devices.roster import RosterDevice
from firmware_sim.devices.surroundings import DeviceSettings, Surroundings
from firmware_sim.signals import PROFILES, Signal, Value, sample

STEADY_S: Final = 10.0
"""A connection that held this long, or carried an acknowledgement, was good: the next wait is the shortest again."""
OFF_S: Final = 1.0
"""How long a reboot takes."""


class Device:
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
        self._speaks = CARRIERS[identity.protocol]
        self.is_answered = self._speaks.is_answered(settings)
        """It learns what is on the gateway's disk."""
        window = min(settings.window, self._speaks.window_max)
        self.outbox = Outbox(messages_max=settings.buffer_messages, window=window)
        self.orders = Orders()
        self._sensors = sensors
        self._settings = settings
        self._around = around
        self._registers = RegisterMap(PROFILES[identity.profile]) if identity.protocol == "modbus" else None
        self._shown: Outgoing | None = None
        """What the registers hold."""
        self.clock = DeviceClock(around.wall_ms)
        self._since_s = around.timers.now()
        self._recent: deque[Outgoing] = deque(maxlen=settings.recent_messages)
        self._garble_next = 0
        self._held_until_s = 0.0
        self._unplugged_until_s = 0.0
        self._boot = 0
        self._seq = 0
        self._is_on = False
        self._failures = 0
        self._carrier: Carrier | None = None

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
        if self._carrier is not None:
            self._carrier.close()

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

    def unplug(self, seconds: float) -> None:
        """Its cable is out for so long: it measures, and reaches nobody."""
        timers = self._around.timers
        until_s = timers.now() + seconds
        self._unplugged_until_s = max(self._unplugged_until_s, until_s)
        if self._carrier is not None:
            self._carrier.abort("unplugged")
        timers.at(until_s, self._connect)

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
        """Of the next messages so many come out as nothing that can be read. Registers can be read, whatever they
        hold."""
        if self._registers is None:
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
        if self.identity.names_itself:
            values[self.identity.alias_key] = self.identity.name
        values.update(sample(self._sensors, now_s - self._since_s))
        payload = msgspec.json.encode(values) if self._registers is None else self._registers.encode(values)
        if not self.clock.is_right:
            around.ledger.may_be_filed_under(time_ms)
        if self._garble_next:
            self._garble_next -= 1
            payload = garbled(payload, around.rng)
            around.counts.malformed += 1
            around.ledger.malformed(self.number, self._boot, self._seq)
        message = Outgoing(self._boot, self._seq, payload, now_s)
        around.counts.made += 1
        if self._registers is not None:
            self._show(message)
            return True
        if not self.is_answered:
            self._send_once(message)
            return True
        dropped = self.outbox.add(message)
        if dropped is not None:
            self._drop(dropped)
        self._send()
        return True

    def went_up(self, carrier: Carrier) -> None:
        self._around.counts.connected += 1
        self._around.counts.connects += 1
        if self._settings.obeys:
            carrier.listen()
            for answer in self.orders.unacknowledged():
                carrier.answer(answer, again=True)
        if self._shown is not None:
            carrier.send((self._shown,))
        self._send()

    def told(self, carrier: Carrier, name: str, command_id: str) -> Answer | None:
        return self.orders.obey(name, command_id) if self._settings.obeys else None

    def acknowledged(self, carrier: Carrier, packet_ids: list[int]) -> None:
        if carrier is not self._carrier:
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

    def sent_again(self, carrier: Carrier, message: Outgoing) -> None:
        message.sends += 1
        self._note_sent(message, again=True)

    def fetched(self, carrier: Carrier) -> None:
        message = self._shown
        if message is not None:
            message.sends += 1
            self._note_sent(message, again=message.sends > 1)

    def waits_since_s(self) -> float | None:
        oldest = self.outbox.oldest_in_flight()
        return None if oldest is None else oldest.sent_s

    def went_down(self, carrier: Carrier, reason: str, *, refused: bool) -> None:
        around = self._around
        if carrier.up_since_s:
            around.counts.connected -= 1
        if refused:
            around.counts.refused += 1
            around.refusal = f"{self.identity.name}: {reason}"
        if carrier is not self._carrier:
            return
        self._carrier = None
        self.outbox.rewind()
        if carrier.up_since_s and around.timers.now() - carrier.up_since_s > STEADY_S:
            self._failures = 0
        settings = self._settings
        longest_s = min(settings.wait_max_s, settings.wait_min_s * 2.0 ** min(self._failures, 16))
        self._failures += 1
        if self._is_on:
            around.timers.after(longest_s * around.rng.uniform(0.5, 1.0), self._connect)

    def _connect(self) -> None:
        around = self._around
        if not self._is_on or self._carrier is not None or around.timers.now() < self._unplugged_until_s:
            return
        carrier = self._carrier = self._speaks(self, self.identity, self._settings, around)
        task = around.loop.create_task(self._open(carrier))
        around.tasks.add(task)
        task.add_done_callback(around.tasks.discard)

    async def _open(self, carrier: Carrier) -> None:
        try:
            async with self._around.connecting, asyncio.timeout(self._settings.answer_s):
                await carrier.open()
        except OSError as error:  # TimeoutError is one
            if carrier is self._carrier:
                self.went_down(carrier, str(error), refused=carrier.makes_its_place)

    def _begin_again(self, reason: str, off_s: float) -> None:
        self._is_on = False
        if self._carrier is not None:
            self._carrier.abort(reason)
        self._forget_shown()
        self._held_until_s = 0.0
        self._around.counts.rebooted += 1
        self._around.ledger.count_boots([self.number])
        self._around.timers.after(off_s, self.switch_on)

    def _send(self) -> None:
        carrier = self._carrier
        if carrier is None or not carrier.is_up or self._around.timers.now() < self._held_until_s:
            return
        messages = self.outbox.take()
        if not messages:
            return
        around = self._around
        now_s = around.timers.now()
        for message in messages:
            message.sent_s = now_s
            around.counts.resent += message.sends > 1 or message.is_repeat
            around.ledger.sent(self.number, message.boot, message.seq)
        around.counts.sent += len(messages)
        carrier.send(messages)

    def _note_sent(self, message: Outgoing, *, again: bool) -> None:
        counts = self._around.counts
        counts.sent += 1
        counts.resent += again
        self._around.ledger.sent(self.number, message.boot, message.seq)

    def _send_once(self, message: Outgoing) -> None:
        """QoS 0: now or never."""
        carrier = self._carrier
        if carrier is None or not carrier.is_up or carrier.is_congested:
            self._drop(message)
            return
        self._note_sent(message, again=False)
        carrier.send((message,))

    def _show(self, message: Outgoing) -> None:
        """In place of the last one."""
        self._forget_shown()
        self._shown = message
        if self._carrier is not None and self._carrier.is_up:
            self._carrier.send((message,))

    def _forget_shown(self) -> None:
        shown, self._shown = self._shown, None
        if shown is not None and not shown.sends:
            self._around.counts.unread += 1
            self._around.ledger.dropped(self.number, shown.boot, shown.seq)

    def _drop(self, message: Outgoing) -> None:
        if message.is_repeat:
            return  # it was delivered before
        self._around.counts.dropped += 1
        self._around.ledger.dropped(self.number, message.boot, message.seq)
