"""Carries commands to devices: each waits here, on disk, until its device takes it or its deadline passes, and the
cloud is told how it stands until it has confirmed that.

    arrived ─▶ on disk: *sent* ─▶ a way to the device ─▶ *delivered*
                                  absent: waits         refused by each: *failed*
                                  gone, no answer: sent again, with the same id
                                                        deadline: *expired*
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from edge.commands import CommandQueue, Held
from edge.listeners.way import CommandRefusedError, DeviceAbsentError, DeviceGoneError, Way
from protocols.messages import Command, CommandState
from sync.link.frames import CommandKept, CommandProgress
from tidegate.logs import get_logger

ARRIVED_MAX: Final = 1024
"""Commands that came and are not on disk yet; the cloud tells what is more again."""
DEVICES_MAX: Final = 256
"""Devices that are being sent something at a time."""
ACK_S: Final = 30.0
"""For the device's protocol to acknowledge one send: a network of batteries takes seconds. Then nobody knows whether
the device has it, and it is sent again."""
WAIT_S_MIN: Final = 0.2
WAIT_S_MAX: Final = 10.0
"""Between looks for a device that is away, doubling: a device that has just connected may be about to subscribe."""
CLOCK_S: Final = 1.0
"""Between looks while nobody knows the time."""
REPORT_AGAIN_S: Final = 30.0
"""A state that the cloud has not confirmed is told once more on the same connection."""

TWIN: Final = "twin"
"""The command that carries desired attributes."""
LEFT: Final = "it left for the device, whose protocol does not acknowledge"
"""What a command says that is not sent again, though it has not ended."""

_log = get_logger("edge.courier")


class Time(msgspec.Struct, frozen=True):
    true_ms: Callable[[], int]
    """Unix milliseconds by the cloud's clock, which deadlines go by, whatever this machine's shows."""
    is_known: Callable[[], bool]
    """Whether anything tells the time: after a boot without, nothing is sent and nothing expires."""


class Courier:
    def __init__(
        self, queue: CommandQueue, ways: Callable[[int], Iterable[tuple[str, Way | None]]], time: Time
    ) -> None:
        """`ways`: of a device, now: where it might be, and the way there if it is."""
        self._queue = queue
        self._ways = ways
        self._time = time
        self._arrived: asyncio.Queue[Command] = asyncio.Queue(ARRIVED_MAX)
        self._open: dict[int, list[Held]] = {}
        """Of each device that has some, in the order in which they came."""
        self._due: list[tuple[float, int]] = []
        """(loop's seconds, device): at which to look at it next; one that was brought forward stands there twice."""
        self._next_s: dict[int, float] = {}
        """When each device with open commands is looked at next."""
        self._wait_s: dict[int, float] = {}
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._sender_woken = asyncio.Event()
        self._changed = asyncio.Event()
        self._unwritten: set[str] = set()
        self._unconfirmed = {held.id for held in queue.held.values() if held.kept != held.state}
        """By id: those whose state the cloud is not known to have."""
        self._report: Callable[[CommandProgress], bool] | None = None
        self._confirmed = True
        self._told: dict[str, tuple[CommandState, float]] = {}
        """What was told on this connection and is not confirmed: the state, and when."""

    def report_by(self, report: Callable[[CommandProgress], bool]) -> None:
        """`report`: the link's, which comes to be after this."""
        self._report = report

    def arrived(self, command: Command) -> None:
        if not self._arrived.full():
            self._arrived.put_nowait(command)

    def linked(self, *, confirmed: bool) -> None:
        """A new connection: everything that is not confirmed is told again."""
        self._confirmed = confirmed
        self._told.clear()
        self._changed.set()

    def kept(self, kept: CommandKept) -> None:
        held = self._queue.held.get(kept.command_id)
        if held is not None and held.state is kept.state and held.id in self._told:  # else it has moved on since
            self._confirm(held)

    def device_came(self, device_id: int) -> None:
        """There may be a way to it now."""
        if any(not held.has_ended and held.text != LEFT for held in self._open.get(device_id, ())):
            self._wait_s.pop(device_id, None)
            self._look_at(device_id, 0.0)

    async def run(self) -> None:
        """Until cancelled: what is under way then is sent again by the next start."""
        self._open.clear()
        for held in self._queue.open:
            self._begin(held)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._take_in())
                group.create_task(self._tell())
                group.create_task(self._send(group))
        finally:
            self._under_way.clear()

    # from the cloud

    async def _take_in(self) -> None:
        while True:
            commands = [await self._arrived.get()]
            while not self._arrived.empty():
                commands.append(self._arrived.get_nowait())
            for command in commands:
                if command.id in self._queue.held:  # the cloud does not know how it stands
                    self._told.pop(command.id, None)
                    self._unconfirmed.add(command.id)
            for held in await self._queue.add(commands, self._time.true_ms()):
                _log.info("command", id=held.id, name=held.name, device=held.device_id, state=held.state.value)
                self._unconfirmed.add(held.id)
                self._begin(held)
                self._supersede(held)
            self._changed.set()

    def _begin(self, held: Held) -> None:
        self._open.setdefault(held.device_id, []).append(held)
        self._look_at(held.device_id, 0.0)

    def _supersede(self, new: Held) -> None:
        """Each twin says all that the ones before it said: of those that wait for a device only the newest does."""
        if new.name != TWIN:
            return
        for held in self._open[new.device_id]:
            if held is new:
                return
            if held.name == TWIN and not (held.sends or held.has_ended):
                self._end(held, CommandState.FAILED, "a newer version of the twin took its place")

    # to the cloud

    async def _tell(self) -> None:
        """Written first, told then, many at once."""
        loop = asyncio.get_running_loop()
        held_by_id = self._queue.held
        while True:
            self._changed.clear()
            if self._unwritten:
                unwritten, self._unwritten = self._unwritten, set()
                await self._queue.changed([held_by_id[name] for name in unwritten if name in held_by_id])
            self._unconfirmed &= held_by_id.keys()
            for name in sorted(self._unconfirmed):
                if not self._tell_one(held_by_id[name], loop.time()):
                    break  # `linked` says when it is time
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REPORT_AGAIN_S):
                    await self._changed.wait()

    def _tell_one(self, held: Held, now_s: float) -> bool:
        """Whether it was told; False: there is no connection."""
        told = self._told.get(held.id)
        if told is not None and told[0] is held.state and now_s < told[1] + REPORT_AGAIN_S:
            return True
        text = held.text if held.has_ended else ""
        progress = CommandProgress(held.id, held.state, text, held.state_ms)
        if self._report is None or not self._report(progress):
            return False
        self._told[held.id] = held.state, now_s
        if not self._confirmed:
            self._confirm(held)
        return True

    def _confirm(self, held: Held) -> None:
        """The cloud has its state."""
        del self._told[held.id]
        self._unconfirmed.discard(held.id)
        held.kept = held.state.value
        self._unwritten.add(held.id)
        self._changed.set()

    # to devices

    def _look_at(self, device_id: int, in_s: float) -> None:
        at_s = asyncio.get_running_loop().time() + in_s
        self._next_s[device_id] = at_s
        heapq.heappush(self._due, (at_s, device_id))
        self._sender_woken.set()

    async def _send(self, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._sender_woken.clear()
            while self._due and self._due[0][0] <= loop.time() and len(self._under_way) < DEVICES_MAX:
                at_s, device_id = heapq.heappop(self._due)
                if self._next_s.get(device_id) != at_s:
                    continue  # it was brought forward
                if device_id in self._under_way:
                    self._next_s[device_id] = 0.0  # once that has ended
                    continue
                task = group.create_task(self._serve(device_id), name=f"commands of device {device_id}")
                self._under_way[device_id] = task
            is_full = len(self._under_way) >= DEVICES_MAX
            wait_s = None if is_full or not self._due else max(0.0, self._due[0][0] - loop.time())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._sender_woken.wait()

    async def _serve(self, device_id: int) -> None:
        """All that is open of one device, in the order in which it came. One that the device does not take now does not
        hold up the others: it may not have subscribed to it."""
        began_s = self._next_s[device_id]
        try:
            for held in list(self._open[device_id]):
                if not held.has_ended:
                    await self._carry(held)
        finally:
            del self._under_way[device_id]
            self._plan(device_id, began_s)

    def _plan(self, device_id: int, began_s: float) -> None:
        left = self._open[device_id] = [held for held in self._open[device_id] if not held.has_ended]
        if not left:
            del self._open[device_id]
            self._next_s.pop(device_id, None)
            self._wait_s.pop(device_id, None)
            self._sender_woken.set()
            return
        wait_s = self._wait_s.get(device_id, WAIT_S_MIN)
        self._wait_s[device_id] = min(2 * wait_s, WAIT_S_MAX)
        first_s = (min(held.deadline for held in left) - self._time.true_ms()) / 1000
        if self._next_s[device_id] != began_s:
            wait_s = 0.0  # asked for meanwhile
        elif self._time.is_known():
            wait_s = min(wait_s, max(first_s, 0.0) + 0.001)
        else:
            wait_s = CLOCK_S
        self._look_at(device_id, wait_s)

    async def _carry(self, held: Held) -> None:
        """One attempt."""
        now_ms = self._time.true_ms()
        if not self._time.is_known():
            held.text = "nobody has told the time since the start: it may have expired"
            return
        left_s = (held.deadline - now_ms) / 1000
        if left_s <= 0:
            self._end(held, CommandState.EXPIRED, _why_expired(held))
            return
        if held.text == LEFT:
            return
        reasons, refusals, tried = [], [], 0
        for place, way in self._ways(held.device_id):
            if way is None:
                reasons.append(f"{place} is not connected")
                continue
            payload = await self._queue.payload(held.id)
            if payload is None:
                reasons.append("the disk does not give it")
                break
            tried += 1
            try:
                if await self._try(held, way, payload, min(left_s, ACK_S), reasons):
                    return
            except CommandRefusedError as error:
                held.sends -= 1
                refusals.append(str(error))
        if tried and len(refusals) == tried:
            self._end(held, CommandState.FAILED, "; ".join(refusals))
            return
        held.text = "; ".join(reasons + refusals) or "the device is of no network of this gateway"

    async def _try(self, held: Held, way: Way, payload: bytes, within_s: float, reasons: list[str]) -> bool:
        """Whether there is nothing more to try for now. Raises CommandRefusedError: by this way it never will."""
        held.sends += 1
        try:
            async with asyncio.timeout(within_s):
                await way.send(Command(held.id, held.device_id, held.name, payload, held.deadline))
        except TimeoutError:
            reasons.append(f"the device did not acknowledge it within {within_s:.3g} s")
        except DeviceAbsentError as error:
            held.sends -= 1
            reasons.append(str(error))
        except DeviceGoneError as error:
            reasons.append(str(error))
        else:
            if way.confirms:
                self._end(held, CommandState.DELIVERED, "")
            else:
                held.text = LEFT
                self._unwritten.add(held.id)
                self._changed.set()
            return True
        return False

    def _end(self, held: Held, state: CommandState, text: str) -> None:
        held.state, held.text, held.state_ms = state, text, self._time.true_ms()
        _log.info("command", id=held.id, name=held.name, state=state.value, reason=text)
        self._unwritten.add(held.id)
        self._unconfirmed.add(held.id)
        self._changed.set()


def _why_expired(held: Held) -> str:
    if held.deadline <= held.came_ms:
        return "its deadline had passed when it came"
    if held.sends:
        return f"nobody knows whether the device has it: {held.text or 'the gateway was stopped'}"
    return held.text or "the gateway was stopped"
