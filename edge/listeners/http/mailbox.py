"""Commands that wait until their device fetches them, and until it says that it has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from edge.listeners.way import DeviceAbsentError, DeviceGoneError
from protocols.messages import Command

LETTERS_MAX: Final = 16
"""Of one device at a time; what else there is waits where commands are durable."""

MAILBOXES_MAX: Final = 10_000
"""Devices that fetch commands; the one that was away longest makes room."""

FETCH_S: Final = 25.0
"""A command waits so long for a device that polls now and then; then it is said to be away. Less than the gateway waits
for a device that may have it (edge/courier.py): what nobody fetched was surely not received."""

RECEIVED_S: Final = 30.0
"""From fetching a command to confirming it. A device that fetches again before gets the same one again."""

AWAY_S: Final = 360.0
"""A device that has not polled for longer than its longest poll, and a minute, is away."""


class Poller(Protocol):
    """A connection on which a device waits for a command."""

    def deliver(self, command: Command) -> None: ...

    def replaced(self) -> None:
        """Another poll of the device came."""
        ...


class _Letter:
    def __init__(self, command: Command) -> None:
        self.command = command
        self.fetched: asyncio.Event = asyncio.Event()
        self.received: asyncio.Event = asyncio.Event()


class Mailbox:
    """Of one device: the oldest command stays in front until it is confirmed."""

    def __init__(self) -> None:
        self.letters: list[_Letter] = []
        self.poller: Poller | None = None
        self.seen_s = 0.0
        """By the event loop's clock."""

    def hand_over(self) -> None:
        if self.letters and self.poller is not None:
            letter, poller = self.letters[0], self.poller
            self.poller = None
            letter.fetched.set()
            poller.deliver(letter.command)


class Mailboxes:
    def __init__(self, now_s: Callable[[], float]) -> None:
        """`now_s`: a clock that never goes back."""
        self._now_s = now_s
        self._boxes: dict[tuple[str, str], Mailbox] = {}

    def poll(self, device: tuple[str, str], poller: Poller) -> None:
        """The device asks: it gets what waits now, or as soon as there is something."""
        box = self._boxes.pop(device, None) or Mailbox()  # so that the order is that of the last polls
        if len(self._boxes) >= MAILBOXES_MAX:
            del self._boxes[next(iter(self._boxes))]
        self._boxes[device] = box
        box.seen_s = self._now_s()
        older, box.poller = box.poller, poller
        if older is not None:
            older.replaced()
        box.hand_over()

    def leave(self, device: tuple[str, str], poller: Poller) -> None:
        """The poll is over."""
        box = self._boxes.get(device)
        if box is not None and box.poller is poller:
            box.poller = None
            box.seen_s = self._now_s()

    def confirm(self, device: tuple[str, str], command_id: str) -> bool:
        """Whether there was such a command to be confirmed."""
        box = self._boxes.get(device)
        for letter in box.letters if box is not None else ():
            if letter.command.id == command_id:
                letter.received.set()
                return True
        return False

    def is_here(self, device: tuple[str, str]) -> bool:
        box = self._boxes.get(device)
        return box is not None and (box.poller is not None or self._now_s() - box.seen_s < AWAY_S)

    async def send(self, device: tuple[str, str], command: Command) -> None:
        """Until the device has confirmed it. Raises DeviceAbsentError or DeviceGoneError."""
        box = self._boxes.get(device)
        name = ":".join(device)
        if box is None:
            raise DeviceAbsentError(f"{name} does not ask for commands")
        if len(box.letters) >= LETTERS_MAX:
            raise DeviceAbsentError(f"{name} has {LETTERS_MAX} commands to fetch")
        letter = _Letter(command)
        box.letters.append(letter)
        try:
            box.hand_over()
            async with asyncio.timeout(FETCH_S):
                await letter.fetched.wait()
            async with asyncio.timeout(RECEIVED_S):
                await letter.received.wait()
        except TimeoutError:
            if letter.fetched.is_set():
                raise DeviceGoneError(f"{name} fetched it and did not confirm it within {RECEIVED_S:g} s") from None
            raise DeviceAbsentError(f"{name} did not ask for it within {FETCH_S:g} s") from None
        finally:
            box.letters.remove(letter)
            box.hand_over()
