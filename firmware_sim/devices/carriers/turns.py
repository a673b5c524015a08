"""What UDP, CoAP and serial lines have in common: one thing under way at a time, the next when that has its answer."""

from __future__ import annotations

import abc
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from firmware_sim.devices.carriers.carrier import Carrier, Owner
from firmware_sim.devices.orders import Answer
from firmware_sim.devices.outbox import Outgoing
from firmware_sim.devices.roster import RosterDevice
from firmware_sim.devices.surroundings import DeviceSettings, Runtime


class Item(Protocol):
    """A message, an answer, or what a protocol asks for itself (packet id 0)."""

    @property
    def packet_id(self) -> int: ...


class TurnCarrier(Carrier):
    """Its acknowledgements need to name nothing."""

    window_max = 1

    def __init__(self, owner: Owner, identity: RosterDevice, settings: DeviceSettings, runtime: Runtime) -> None:
        super().__init__(owner, identity, settings, runtime)
        self._queue: deque[Item] = deque()
        self._under_way: Item | None = None
        self._has_ended = False

    def send(self, messages: Sequence[Outgoing]) -> None:
        self._queue += messages
        self._next()

    def answer(self, answer: Answer, *, again: bool = False) -> None:
        self._queue.append(answer)
        self._next()

    def close(self) -> None:
        self._end("closed")

    def abort(self, reason: str) -> None:
        self._end(reason)

    @abc.abstractmethod
    def _transmit(self, item: Item) -> None:
        """For the first time on this carrier."""

    @abc.abstractmethod
    def _shut(self) -> None:
        """Lets go of the socket or line, if there is one."""

    def _next(self) -> None:
        if self._under_way is None and self._queue and self.is_up:
            self._under_way = self._queue.popleft()
            self._transmit(self._under_way)

    def _done(self) -> None:
        """What is under way has its answer."""
        item, self._under_way = self._under_way, None
        if item is not None:
            self._owner.acknowledged(self, [item.packet_id])
            self._next()

    def _expect(self, item: Item, within_s: float) -> None:
        """Ends the carrier where its answer takes longer."""

        def look() -> None:
            if self._under_way is item and not self._has_ended:
                self._end(f"no answer within {within_s:g} s")

        self._timers.after(within_s, look)

    def _end(self, reason: str, *, refused: bool = False) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        self.is_up = False
        self._shut()
        # Not now: whoever ends it may be in the middle of something.
        self._runtime.loop.call_soon(lambda: self._owner.went_down(self, reason, refused=refused))
