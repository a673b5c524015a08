"""Commands and their deadlines, whatever this machine's clock shows."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from edge.anchors import Anchors
from edge.downlink import GatewayDownlink
from edge.listeners.mqtt import MqttListener
from edge.replica import Replica
from protocols.messages import ClockState, Command, CommandState
from sync.link.frames import CommandProgress
from sync.registry import Registry
from tests.edge.listeners.memory_bus import SetClock
from tests.edge.site import registry
from tests.edge.test_anchors import DAY_MS, NOW, YEAR_MS, MemoryFile


class Listener:
    """Its device acknowledges at once, or never."""

    network_id = "quay"
    name = "mqtt"

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.answers = True

    async def send(self, alias_key: str, alias: str, topic: str, payload: bytes) -> None:
        self.sent.append(topic)
        if not self.answers:
            await asyncio.Event().wait()


class Downlink:
    """A gateway's, of a machine whose clock shows `wall_ms`, 10 s after the cloud said that it is NOW."""

    def __init__(self, wall_ms: int, state: ClockState) -> None:
        self.clock = SetClock()
        self.clock.offset_ms = wall_ms - self.clock.boot_now_ms
        self.clock.now_state = state
        self.anchors = Anchors(MemoryFile(), self.clock)
        self.anchors.note_cloud_time(NOW - 10_000, 0)
        self.clock.boot_now_ms += 10_000
        self.listener = Listener()
        self.reports: asyncio.Queue[CommandProgress] = asyncio.Queue()
        held = Registry("demo")
        held.apply(registry())
        replica = cast("Replica", type("Held", (), {"registry": held}))
        listeners = cast("list[MqttListener]", [self.listener])
        self.downlink = GatewayDownlink(replica, listeners, true_ms=self.anchors.true_ms)
        self.downlink.report_by(lambda progress: self.reports.put_nowait(progress) is None)

    async def outcome(self, **command: Any) -> CommandProgress:
        await self.downlink.command_arrived(Command("c", 1, "restart", b"", **command))
        async with asyncio.timeout(10):
            return await self.reports.get()


@pytest.mark.parametrize("wall_ms", [60_000, NOW - YEAR_MS, NOW - DAY_MS, NOW, NOW + DAY_MS, NOW + 10 * YEAR_MS])
@pytest.mark.parametrize("state", ClockState)
@pytest.mark.parametrize("step_ms", [0, -20 * YEAR_MS, DAY_MS])
async def test_deadlines_go_by_the_clouds_clock(wall_ms: int, state: ClockState, step_ms: int) -> None:
    site = Downlink(wall_ms, state)
    site.clock.offset_ms += step_ms
    in_time = await site.outcome(deadline=NOW + 1_000)
    assert (in_time.state, site.listener.sent) == (CommandState.DELIVERED, ["down/restart"])
    assert abs(in_time.at_ms - NOW) <= 1
    late = await site.outcome(deadline=NOW - 1_000)
    assert (late.state, late.text) == (CommandState.EXPIRED, "its deadline had passed when it came")
    site.listener.answers = False
    unanswered = await site.outcome(deadline=NOW + 50)
    assert (unanswered.state, unanswered.text) == (CommandState.EXPIRED, "the device did not acknowledge it in time")
