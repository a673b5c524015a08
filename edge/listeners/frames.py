"""One line of frames, whatever carries it: a TCP connection, a serial port. No task and no await; one call a read."""

from __future__ import annotations

import asyncio
import math
from itertools import groupby
from typing import Final, Protocol

import msgspec

from edge.listeners.answers import Answer
from edge.listeners.collector import Collector
from edge.listeners.command_form import answer_origin, is_answer
from edge.listeners.config import device_of
from edge.listeners.filling import Owed
from edge.listeners.idle import IdleTimer
from edge.listeners.listener import ListenerCounters
from edge.listeners.refusals import Refusals, Refused
from edge.listeners.stream_config import FramedConfig
from protocols.framing import make_framing
from protocols.framing.base import Framing
from protocols.framing.spec import FramingSpec
from protocols.messages import Origin, Priority
from protocols.templates import Name, Template

LINE_RECORDS_MAX: Final = 4096
"""Rows of one line without an answer; beyond it, this line alone is not read for a while, so that one that floods
cannot fill what all share. A batch holds as many."""

LINE_BYTES_MAX: Final = 512 * 1024
"""The same by bytes; one payload of any allowed size always goes through."""

SLICE_BYTES: Final = 16 * 1024
"""Of a read that is looked at before it is asked whether the line has too much waiting: a read may hold 256 KB, which
as frames of one byte would be 130,000 records."""

REJECTS_TOLD_PER_S: Final = 100
"""Of one listener, with their bytes; more are counted: noise must not cost what frames cost."""

_HELD_BY_ALL: Final = 1
_HELD_BY_OWN: Final = 2


class FrameRules(msgspec.Struct, frozen=True):
    """What the configuration says of a listener's frames."""

    framing: Framing
    gap_s: float | None
    """A silence that means something; None: none does."""
    ack: Answer
    nack: Answer
    form: str
    """Of commands (edge/listeners/command_form.py)."""
    codec: str
    priority: Priority
    device: Name
    login: Template | None = None
    gather_s: float = 0.0
    """Frames wait for the next multiple of it by the loop's clock, with those of all lines; 0: they do not."""


def rules_of(
    config: FramedConfig, framing: FramingSpec, *, silence_counts: bool, login: str = "", gather_s: float = 0.0
) -> FrameRules:
    """`silence_counts`: also where the framing is not by gaps, half a frame is given up after a silence."""
    return FrameRules(
        framing=make_framing(framing),
        gap_s=framing.gap_ms / 1000 if silence_counts or framing.kind == "gap" else None,
        ack=Answer(config.ack, ("count",)),
        nack=Answer(config.nack, ("code",)),
        form=config.commands,
        codec=config.codec,
        priority=Priority[config.priority.upper()],
        device=device_of(config.device),
        login=Template(login) if login else None,
        gather_s=gather_s,
    )


class FrameHub(Protocol):
    """What a line needs of its listener."""

    name: str
    network_id: str
    collector: Collector
    counters: ListenerCounters
    refusals: Refusals
    rules: FrameRules
    paused: bool

    def named(self, line: FrameLine) -> None:
        """The line's device is known now."""
        ...

    def tells_reject(self) -> bool:
        """Whether one more reject may be told with its bytes."""
        ...


class Carrier(Protocol):
    """What carries a line."""

    def write(self, data: bytes) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def cut(self) -> None:
        """Ends it, after what is left to write."""
        ...


class FrameLine:
    """A Waiter of the collector: frames in, answers out."""

    def __init__(
        self, hub: FrameHub, carrier: Carrier, peer: str, name: Name | None, loop: asyncio.AbstractEventLoop
    ) -> None:
        """`name`: the device; None: its first frame says who it is."""
        self.peer = peer
        self.name = name
        self.is_open = True
        self.parting = "connection lost"
        """Why it ends, once it does, for people."""
        self.frames = 0
        """Received, since it was opened."""
        self._hub = hub
        self._carrier = carrier
        self._loop = loop
        self._decoder = hub.rules.framing.decoder()
        self._origin = None if name is None else self._origin_of(name)
        self._held = _HELD_BY_ALL if hub.paused else 0
        self._waiting_rows = 0
        self._waiting_bytes = 0
        self._recorded = 0
        self._is_finishing = False
        self._gathered: list[tuple[Origin, list[bytes]]] = []
        self._unread = b""
        gap_s = hub.rules.gap_s
        self._idle = None if gap_s is None else IdleTimer(loop, gap_s, self._silent)

    @property
    def is_held(self) -> bool:
        return self._held != 0

    @property
    def held_bytes(self) -> int:
        """Of a frame that is not complete."""
        return self._decoder.held_bytes

    def receive(self, data: bytes) -> None:
        self._hub.counters.bytes_in += len(data)
        if self._idle is not None:
            self._idle.heard()
        if self._unread:
            self._unread += data
        else:
            self._feed(data)

    def finish(self) -> None:
        """The device has said all, and may wait for its answers: the line ends with the last of them."""
        if self._idle is not None:
            self._idle.stop()
        self.parting = "disconnected"
        self._take(self._decoder.idle())
        self.hand_over()
        self._is_finishing = True
        if not self._waiting_rows:
            self._part()

    def end(self) -> None:
        """Nothing more comes, and nobody listens."""
        if self._idle is not None:
            self._idle.stop()
        if self.is_open:
            self._take(self._decoder.receive(self._unread))
            self._take(self._decoder.idle())
            self.hand_over()
            self.is_open = False

    def refuse(self, code: str, detail: str, data: bytes) -> None:
        """Ends the line, and says why."""
        if not self.is_open:
            return
        self.parting = detail
        self._tell(code, detail, data)
        self._part()

    def send(self, payload: bytes) -> None:
        """A frame to the device. Raises FrameError."""
        self._carrier.write(self._hub.rules.framing.encode(payload))

    def hold(self) -> None:
        """Stops reading, because too much waits."""
        self._hold(_HELD_BY_ALL)

    def release(self) -> None:
        self._release(_HELD_BY_ALL)

    def hand_over(self) -> None:
        """What was gathered goes to the collector."""
        gathered, self._gathered = self._gathered, []
        for origin, frames in gathered:
            self._hub.collector.add(origin, frames, self)

    # Waiter

    def recorded(self, owed: Owed) -> None:
        self._hub.counters.recorded += owed.rows
        ack = self._hub.rules.ack
        if ack and self.is_open:
            self._carrier.write(ack.counted(self._recorded + 1, owed.rows))
        self._recorded += owed.rows
        self._settled(owed)

    def refused(self, owed: Owed, code: str) -> None:
        """A device that waits for an answer sends again, once it is told or cut off."""
        rules, refused = self._hub.rules, self._hub.counters.refused
        refused[code] = refused.get(code, 0) + owed.rows
        if rules.nack and self.is_open:
            self._carrier.write(rules.nack.filled("code", code) * owed.rows)
        elif rules.ack:
            self.refuse(code, f"{owed.rows} records were not taken", b"")
        self._settled(owed)

    # inside

    def _part(self) -> None:
        if self.is_open:
            self.is_open = False
            self._carrier.cut()

    def _feed(self, data: bytes) -> None:
        """As much of it as may wait; the rest when there is room."""
        self._unread = b""
        for at in range(0, len(data), SLICE_BYTES):
            self._take(self._decoder.receive(data[at : at + SLICE_BYTES]))
            if self._decoder.is_lost and self._idle is None:
                self.refuse("framing", "where frames begin is not known any more", b"")
            if not self.is_open:
                return
            if self._held:
                self._unread = data[at + SLICE_BYTES :]
                return

    def _take(self, frames: list[bytes]) -> None:
        self._tell_rejects()
        if not frames:
            return
        self.frames += len(frames)
        origin = self._origin
        if origin is None:
            origin = self._log_in(frames.pop(0))
            if origin is None or not frames:
                return
        self._waiting_rows += len(frames)
        self._waiting_bytes += sum(map(len, frames))
        runs = self._runs(origin, frames)
        if self._hub.rules.gather_s:
            self._gather(runs)
        else:
            for of_run, run in runs:
                self._hub.collector.add(of_run, run, self)
        if self._waiting_rows > LINE_RECORDS_MAX or self._waiting_bytes > LINE_BYTES_MAX:
            self._hold(_HELD_BY_OWN)

    def _runs(self, origin: Origin, frames: list[bytes]) -> list[tuple[Origin, list[bytes]]]:
        """Frames with their origin, a device's answers to commands being recorded as such. They keep their order: an
        acknowledgement names no frame, and a device takes it for the oldest one's."""
        if self._hub.rules.form != "json" or not any(map(is_answer, frames)):
            return [(origin, frames)]
        answers = answer_origin(origin)
        return [(answers if are_answers else origin, list(run)) for are_answers, run in groupby(frames, is_answer)]

    def _gather(self, runs: list[tuple[Origin, list[bytes]]]) -> None:
        gathered = self._gathered
        if not gathered:
            gather_s = self._hub.rules.gather_s
            self._loop.call_at(math.ceil(self._loop.time() / gather_s) * gather_s, self.hand_over)
        for origin, frames in runs:
            if gathered and gathered[-1][0] is origin:
                gathered[-1][1].extend(frames)
            else:
                gathered.append((origin, frames))

    def _log_in(self, frame: bytes) -> Origin | None:
        login = self._hub.rules.login
        name = None if login is None else login.match(frame.decode(errors="replace").strip())
        if name is None:
            self._hub.counters.auth_failures += 1
            self.refuse("login", "the first frame does not name the device as the template has it", frame)
            return None
        self.name = name
        self._origin = self._origin_of(name)
        self._hub.named(self)
        return self._origin

    def _origin_of(self, name: Name) -> Origin:
        hub = self._hub
        return Origin(hub.network_id, name.alias_key, name.alias, "", hub.rules.codec, hub.name, hub.rules.priority)

    def _silent(self) -> None:
        if self._held and self._idle is not None:
            self._idle.heard()  # the silence is ours: its bytes wait for us to read them
        else:
            self._take(self._decoder.idle())

    def _tell_rejects(self) -> None:
        rejects, more = self._decoder.take_rejects()
        if not rejects:
            return
        hub = self._hub
        count = len(rejects) + sum(more.values())
        hub.counters.malformed += count
        for reject in rejects:
            if hub.tells_reject():
                self._tell(reject.code, reject.detail, reject.data)
            else:
                hub.refusals.count(reject.code, 1)
        for code, times in more.items():
            hub.refusals.count(code, times)
        if hub.rules.nack and self.is_open:
            self._carrier.write(hub.rules.nack.filled("code", rejects[0].code) * count)

    def _tell(self, code: str, detail: str, data: bytes) -> None:
        hub = self._hub
        user = "" if self.name is None else self.name.alias
        wall_ms = hub.collector.clock.wall_ms()
        hub.refusals.add(Refused(wall_ms, code, detail, self.peer, user, data), now_s=self._loop.time())

    def _settled(self, owed: Owed) -> None:
        self._waiting_rows -= owed.rows
        self._waiting_bytes -= owed.bytes
        if self._waiting_rows <= LINE_RECORDS_MAX // 2 and self._waiting_bytes <= LINE_BYTES_MAX // 2:
            self._release(_HELD_BY_OWN)
        if self._is_finishing and not self._waiting_rows:
            self._part()

    def _hold(self, by: int) -> None:
        was_held, self._held = self._held, self._held | by
        if not was_held and self.is_open:
            self._carrier.pause_reading()

    def _release(self, by: int) -> None:
        if not self._held & by:
            return
        self._held &= ~by
        if not self._held and self.is_open:
            # Not now: the collector may be telling others, and what this adds could be too much again.
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if not self._held and self.is_open and self._unread:
            self._feed(self._unread)
        if not self._held and self.is_open:
            self._carrier.resume_reading()
