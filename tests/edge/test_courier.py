"""Commands on their way to devices that come and go, and what the cloud is told of them, whatever this machine's clock
shows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from edge.anchors import Anchors
from edge.commands import CommandQueue
from edge.courier import Courier, Time
from edge.listeners.way import CommandRefusedError, DeviceAbsentError, DeviceGoneError, Way
from protocols.messages import ClockState, Command, CommandState
from sync.link.frames import CommandKept, CommandProgress
from tests.edge.listeners.memory_bus import SetClock
from tests.edge.test_anchors import DAY_MS, NOW, YEAR_MS, MemoryFile

PATIENCE_S = 10.0


class Device:
    """Runs each command once, by its id."""

    def __init__(self) -> None:
        self.confirms = True
        self.is_there = True
        self.answers = True
        self.failures: list[Exception] = []
        self.came: list[str] = []
        self.ran: dict[str, tuple[str, bytes]] = {}
        self.was_asked = asyncio.Event()

    async def send(self, command: Command) -> None:
        self.was_asked.set()
        if self.failures and not isinstance(self.failures[0], DeviceGoneError):
            raise self.failures.pop(0)
        self.came.append(command.id)
        self.ran.setdefault(command.id, (command.name, command.payload))
        if self.failures:
            raise self.failures.pop(0)
        if not self.answers:
            await asyncio.Event().wait()

    async def asked(self) -> None:
        self.was_asked.clear()
        async with asyncio.timeout(PATIENCE_S):
            await self.was_asked.wait()


class Gateway:
    """A gateway's, of a machine whose clock shows `wall_ms`, 10 s after the cloud said that it is NOW."""

    def __init__(self, path: Path, wall_ms: int = NOW, state: ClockState = ClockState.SYNCHRONIZED) -> None:
        self.path = path
        self.clock = SetClock()
        self.clock.offset_ms = wall_ms - self.clock.boot_now_ms
        self.clock.now_state = state
        self.anchors = Anchors(MemoryFile(), self.clock)
        self.tell_time()
        self.devices = {1: Device()}
        self.elsewhere: Device | None = None
        """A second way to each device."""
        self.reports: asyncio.Queue[CommandProgress] = asyncio.Queue()
        self.is_linked = True
        self.queue: CommandQueue
        self.courier: Courier

    @property
    def device(self) -> Device:
        return self.devices[1]

    def tell_time(self) -> None:
        self.anchors.note_cloud_time(NOW - 10_000, 0)
        self.clock.boot_now_ms += 10_000

    @contextlib.asynccontextmanager
    async def up(self) -> AsyncIterator[None]:
        self.queue = CommandQueue(self.path)
        time = Time(self.anchors.true_ms, lambda: self.anchors.true_error_ms() is not None)
        self.courier = Courier(self.queue, self._ways, time)
        self.courier.report_by(self._report)
        task = asyncio.create_task(self.courier.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.queue.close()

    def send(self, name: str = "a", within_ms: int = 60_000, device: int = 1, command: str = "restart") -> None:
        self.courier.arrived(Command(name, device, command, b"now", NOW + within_ms))

    async def hear(self, *, confirm: bool = True) -> tuple[str, str, str]:
        async with asyncio.timeout(PATIENCE_S):
            progress = await self.reports.get()
        if confirm:
            self.courier.kept(CommandKept(progress.command_id, progress.state))
        return progress.command_id, progress.state.value, progress.text

    async def hear_until_ended(self) -> tuple[str, str, str]:
        while (heard := await self.hear())[1] == "sent":
            pass
        return heard

    def _ways(self, device_id: int) -> Iterator[tuple[str, Way | None]]:
        device = self.devices.get(device_id)
        if device is not None:
            yield f"serial:{device_id} at mqtt", device if device.is_there else None
        if self.elsewhere is not None:
            yield f"serial:{device_id} at coap", self.elsewhere if self.elsewhere.is_there else None

    def _report(self, progress: CommandProgress) -> bool:
        if self.is_linked:
            self.reports.put_nowait(progress)
        return self.is_linked


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "commands.db"


@pytest.mark.parametrize("wall_ms", [60_000, NOW - YEAR_MS, NOW, NOW + DAY_MS, NOW + 10 * YEAR_MS])
@pytest.mark.parametrize("state", ClockState)
@pytest.mark.parametrize("step_ms", [0, -20 * YEAR_MS, DAY_MS])
async def test_deadlines_go_by_the_clouds_clock(path: Path, wall_ms: int, state: ClockState, step_ms: int) -> None:
    gateway = Gateway(path, wall_ms, state)
    gateway.clock.offset_ms += step_ms
    async with gateway.up():
        gateway.send("in time", 1_000)
        assert await gateway.hear_until_ended() == ("in time", "delivered", "")
        gateway.send("late", -1_000)
        assert await gateway.hear_until_ended() == ("late", "expired", "its deadline had passed when it came")
    assert list(gateway.device.ran) == ["in time"]


@pytest.mark.parametrize("wall_ms", [60_000, NOW, NOW + YEAR_MS])
async def test_nothing_is_sent_and_nothing_expires_while_nobody_knows_the_time(path: Path, wall_ms: int) -> None:
    gateway = Gateway(path)
    gateway.device.is_there = False
    async with gateway.up():
        gateway.send()
        assert await gateway.hear() == ("a", "sent", "")
    again = Gateway(path, wall_ms, ClockState.RESTORED)  # after another boot, by a clock that nobody has set
    again.anchors = Anchors(MemoryFile(), again.clock)
    async with again.up():
        held = again.queue.held["a"]
        async with asyncio.timeout(PATIENCE_S):
            while "nobody has told the time" not in held.text:
                await asyncio.sleep(0.01)
        assert (held.state, again.device.came) == (CommandState.SENT, [])
        again.tell_time()
        assert await again.hear_until_ended() == ("a", "delivered", "")


async def test_it_waits_for_a_device_that_is_away_and_says_for_what(path: Path) -> None:
    gateway = Gateway(path)
    gateway.device.is_there = False
    async with gateway.up():
        gateway.send()
        assert await gateway.hear() == ("a", "sent", "")
        held = gateway.queue.held["a"]
        async with asyncio.timeout(PATIENCE_S):
            while not held.text:
                await asyncio.sleep(0.01)
        assert (held.text, held.sends) == ("serial:1 at mqtt is not connected", 0)
        gateway.device.is_there = True
        gateway.courier.device_came(1)
        assert await gateway.hear() == ("a", "delivered", "")
    assert gateway.device.ran == {"a": ("restart", b"now")}


async def test_an_unknown_outcome_is_sent_again_under_the_same_id(path: Path) -> None:
    gateway = Gateway(path)
    gateway.device.failures = [DeviceGoneError("it left"), DeviceAbsentError("it sleeps"), DeviceGoneError("it left")]
    async with gateway.up():
        gateway.send()
        assert await gateway.hear_until_ended() == ("a", "delivered", "")
    assert gateway.device.came == ["a"] * 3
    assert len(gateway.device.ran) == 1


async def test_what_the_device_can_never_take_fails_at_once(path: Path) -> None:
    gateway = Gateway(path)
    gateway.device.failures = [CommandRefusedError("larger than its buffer")]
    async with gateway.up():
        gateway.send()
        assert await gateway.hear_until_ended() == ("a", "failed", "larger than its buffer")
    assert gateway.device.came == []


async def test_what_one_way_refuses_another_may_take(path: Path) -> None:
    gateway = Gateway(path)
    gateway.device.failures = [CommandRefusedError("no such register")]
    gateway.elsewhere = Device()
    async with gateway.up():
        gateway.send("a")
        assert await gateway.hear_until_ended() == ("a", "delivered", "")
        gateway.device.failures = [CommandRefusedError("no such register")]
        gateway.elsewhere.is_there = False
        gateway.send("b")
        assert await gateway.hear_until_ended() == ("b", "failed", "no such register")
        gateway.device.failures = [CommandRefusedError("no such register") for _ in range(2)]
        gateway.elsewhere.is_there = True
        gateway.elsewhere.failures = [DeviceGoneError("it left")]
        gateway.send("c")
        assert await gateway.hear_until_ended() == ("c", "delivered", "")
    assert gateway.device.came == []
    assert gateway.elsewhere.came == ["a", "c", "c"]


async def test_a_deadline_says_what_is_known(path: Path) -> None:
    gateway = Gateway(path)
    gateway.devices[2] = Device()
    gateway.device.answers = False
    gateway.devices[2].is_there = False
    async with gateway.up():
        gateway.send("silent", 60_000)
        gateway.send("away", 60_000, device=2)
        gateway.send("unknown", 60_000, device=3)
        await gateway.device.asked()
        for _ in range(3):
            await gateway.hear()
        gateway.clock.boot_now_ms += 60_000
        gateway.device.answers = True
        for number in (1, 2, 3):
            gateway.courier.device_came(number)
        ended = {heard[0]: heard[1:] for heard in [await gateway.hear() for _ in range(2)]}
    assert ended["away"] == ("expired", "serial:2 at mqtt is not connected")
    assert ended["unknown"] == ("expired", "the device is of no network of this gateway")
    async with gateway.up():
        while (heard := await gateway.hear_until_ended())[0] != "silent":
            pass
    _, state, text = heard
    assert state == "expired"
    assert text.startswith("nobody knows whether the device has it")


async def test_one_that_is_not_taken_holds_up_no_other(path: Path) -> None:
    gateway = Gateway(path)
    gateway.device.failures = [DeviceAbsentError("it does not subscribe to down/a")]
    async with gateway.up():
        gateway.send("a")
        gateway.send("b")
        assert {(await gateway.hear_until_ended())[0] for _ in range(2)} == {"a", "b"}
    assert gateway.device.came == ["b", "a"]


async def test_only_the_newest_twin_waits_for_a_device(path: Path) -> None:
    gateway = Gateway(path)
    gateway.device.is_there = False
    async with gateway.up():
        for name, command in (("v1", "twin"), ("other", "restart"), ("v2", "twin"), ("v3", "twin")):
            gateway.send(name, command=command)
        ended = {heard[0]: heard[1:] for heard in [await gateway.hear_until_ended() for _ in range(2)]}
        assert ended == dict.fromkeys(("v1", "v2"), ("failed", "a newer version of the twin took its place"))
        gateway.device.is_there = True
        gateway.courier.device_came(1)
        assert {(await gateway.hear_until_ended())[0] for _ in range(2)} == {"other", "v3"}
    assert gateway.device.came == ["other", "v3"]


async def test_a_command_told_twice_is_run_once_and_its_state_told_again(path: Path) -> None:
    gateway = Gateway(path)
    async with gateway.up():
        gateway.send()
        assert await gateway.hear_until_ended() == ("a", "delivered", "")
        gateway.send()
        assert await gateway.hear() == ("a", "delivered", "")
    async with gateway.up():
        gateway.send()
        assert await gateway.hear() == ("a", "delivered", "")
    assert gateway.device.came == ["a"]


async def test_what_the_cloud_has_not_confirmed_is_told_on_each_connection_and_after_a_restart(path: Path) -> None:
    gateway = Gateway(path)
    gateway.is_linked = False
    async with gateway.up():
        gateway.send()
        await gateway.device.asked()
    gateway.is_linked = True
    async with gateway.up():
        while (await gateway.hear(confirm=False))[1] != "delivered":
            pass
        gateway.courier.linked(confirmed=True)
        assert await gateway.hear() == ("a", "delivered", "")
        gateway.courier.linked(confirmed=True)
        gateway.send("b")
        assert (await gateway.hear())[0] == "b"


async def test_a_confirmation_of_an_earlier_state_is_none_of_a_later_one(path: Path) -> None:
    gateway = Gateway(path)
    gateway.device.is_there = False
    async with gateway.up():
        gateway.send()
        assert await gateway.hear(confirm=False) == ("a", "sent", "")
        gateway.device.is_there = True
        gateway.courier.device_came(1)
        async with asyncio.timeout(PATIENCE_S):
            while gateway.queue.held["a"].state is CommandState.SENT:
                await asyncio.sleep(0)
        gateway.courier.kept(CommandKept("a", CommandState.SENT))
        assert await gateway.hear() == ("a", "delivered", "")


async def test_a_cloud_that_confirms_nothing_is_told_once(path: Path) -> None:
    gateway = Gateway(path)
    async with gateway.up():
        gateway.courier.linked(confirmed=False)
        gateway.send()
        while (await gateway.hear(confirm=False))[1] != "delivered":
            pass
        gateway.courier.linked(confirmed=False)
        gateway.send("b")
        assert (await gateway.hear(confirm=False))[0] == "b"


async def test_what_no_protocol_confirms_stays_sent_and_is_not_sent_again(path: Path) -> None:
    gateway = Gateway(path)
    gateway.device.confirms = False
    async with gateway.up():
        gateway.send()
        await gateway.device.asked()
        assert await gateway.hear() == ("a", "sent", "")
        gateway.courier.device_came(1)
        gateway.clock.boot_now_ms += 60_000
        gateway.courier.device_came(1)
        heard = await gateway.hear_until_ended()
    assert heard[:2] == ("a", "expired")
    assert "whose protocol does not acknowledge" in heard[2]
    assert gateway.device.came == ["a"]
