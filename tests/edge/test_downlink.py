"""Commands and their deadlines, whatever this machine's clock shows."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from edge.anchors import Anchors
from edge.downlink import GatewayDownlink
from edge.listeners.listener import Listener as ListenerOfAnyKind
from edge.listeners.way import CommandRefusedError, DeviceAbsentError, DeviceGoneError
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
    confirms = True

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.answers = True
        self.failure: Exception | None = None

    def way(self, alias_key: str, alias: str) -> Listener:
        return self

    async def send(self, command: Command) -> None:
        self.sent.append(command.name)
        if self.failure is not None:
            raise self.failure
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
        listeners = cast("list[ListenerOfAnyKind]", [self.listener])
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
    assert (in_time.state, site.listener.sent) == (CommandState.DELIVERED, ["restart"])
    assert abs(in_time.at_ms - NOW) <= 1
    late = await site.outcome(deadline=NOW - 1_000)
    assert (late.state, late.text) == (CommandState.EXPIRED, "its deadline had passed when it came")
    site.listener.answers = False
    unanswered = await site.outcome(deadline=NOW + 50)
    assert (unanswered.state, unanswered.text) == (CommandState.EXPIRED, "the device did not acknowledge it in time")


async def test_what_no_protocol_confirms_is_sent_and_not_delivered() -> None:
    site = Downlink(NOW, ClockState.SYNCHRONIZED)
    site.listener.confirms = False
    progress = await site.outcome(deadline=NOW + 1_000)
    assert (progress.state, progress.text) == (CommandState.SENT, "")


@pytest.mark.parametrize("failure", [DeviceAbsentError, DeviceGoneError, CommandRefusedError])
async def test_why_a_device_does_not_have_a_command_is_told(failure: type[Exception]) -> None:
    site = Downlink(NOW, ClockState.SYNCHRONIZED)
    site.listener.failure = failure("it is asleep")
    progress = await site.outcome(deadline=NOW + 1_000)
    assert (progress.state, progress.text) == (CommandState.FAILED, "it is asleep")
