"""QoS 2 of MQTT while the gateway is killed: each message is stored, once. Messages have no key of their own: only the
session tells a second copy from a new message."""

from __future__ import annotations

import asyncio
import contextlib
import random
from functools import partial
from pathlib import Path

from protocols.mqtt.packets import Ack, Publish
from protocols.mqtt.wire import PUBCOMP, PUBREC, PUBREL, V311
from tests.edge.listeners.mqtt_client import Packets
from tests.end_to_end.site import Site

MESSAGES = 400
AT_ONCE = 8
KILLS = 4
SEED = 20261126
LOST = (ConnectionError, asyncio.IncompleteReadError, TimeoutError, AssertionError)


class Device:
    """Keeps what it says until the gateway has it, as the standard wants it from a client (section 4.4)."""

    def __init__(self, port: int, name: str, password: str) -> None:
        self.done = 0
        self._port = port
        self._login = (name, password)
        self._unsent = list(range(MESSAGES))
        self._published: dict[int, int] = {}
        self._received: list[int] = []

    async def has(self, done: int) -> bool:
        return self.done >= done

    async def run(self) -> None:
        while self._unsent or self._published or self._received:
            with contextlib.suppress(*LOST):
                await self._connection()
            await asyncio.sleep(0.05)

    async def _connection(self) -> None:
        user, password = self._login
        line = await Packets.connect(
            self._port, "once", clean=False, user=user, password=password, version=V311, keep_alive_s=30
        )
        for packet_id in self._received:
            line.says(Ack(PUBREL, packet_id))
        for packet_id, number in self._published.items():
            line.says(_message(number, packet_id, dup=True))
        while True:
            while self._unsent and len(self._published) + len(self._received) < AT_ONCE:
                packet_id = min(set(range(1, AT_ONCE + 1)) - {*self._published, *self._received})
                self._published[packet_id] = self._unsent.pop(0)
                line.says(_message(self._published[packet_id], packet_id))
            if not self._published and not self._received:
                await line.disconnects()
                return
            ack = await line.hears(Ack)
            if ack.kind == PUBREC and ack.packet_id in self._published:
                del self._published[ack.packet_id]
                self._received.append(ack.packet_id)
                line.says(Ack(PUBREL, ack.packet_id))
            elif ack.kind == PUBCOMP:
                self._received.remove(ack.packet_id)
                self.done += 1


def _message(number: int, packet_id: int, *, dup: bool = False) -> Publish:
    return Publish("up", b'{"n":%d}' % number, 2, packet_id, dup=dup)


async def test_qos_2_is_stored_once_while_the_gateway_is_killed(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    async with Site(tmp_path) as site:
        await site.set_up()
        (named,) = await site.add_devices("plain", 1)
        await site.until(partial(site.gateway_knows, named))
        device = Device(named["port"], named["name"], named["password"])
        running = asyncio.create_task(device.run())
        for kill in range(1, KILLS + 1):
            await site.until(partial(device.has, kill * MESSAGES // (KILLS + 2)))
            await asyncio.sleep(chance.uniform(0.0, 0.02))
            await site.gateway.kill()
            await site.start_gateway()
        await running

        async def stored() -> list[int]:
            path = f"devices/plain:serial:{named['name']}/history"
            return sorted(row["data"]["n"] for row in (await site.get(f"{path}?limit=1000"))["items"])

        async def all_are_stored() -> bool:
            return len(await stored()) >= MESSAGES

        async def all_has_arrived() -> bool:
            total = (await site.get("accounting"))["total"]
            pending = (await site.gateway_status())["totals"]["pending"]
            return not (pending or total["in_pipeline"] or total["records_in_pipeline"])

        await site.until(all_has_arrived)
        await site.until(all_are_stored)
        assert await stored() == list(range(MESSAGES))
