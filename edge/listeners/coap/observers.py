"""Devices that observe their commands (RFC 7641): each command is a notification, which the device acknowledges."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from typing import Final, Protocol

from edge.credentials import Grant
from edge.listeners.coap import answers
from edge.listeners.coap.answers import Answer
from edge.listeners.coap.confirmables import Confirmables
from edge.listeners.coap.limits import (
    BLOCK_BYTES_MAX,
    BLOCKS_S,
    OBSERVATION_S,
    OBSERVERS_MAX,
    OBSERVERS_PER_SOURCE_MAX,
)
from edge.listeners.coap.parts import part_of
from edge.listeners.coap.requests import Request
from edge.listeners.command_form import framed
from edge.listeners.way import DeviceAbsentError, DeviceGoneError
from protocols.coap.message import Message, uint
from protocols.coap.numbers import JSON, Code, Kind, Option
from protocols.messages import Command


class Observe(enum.IntEnum):
    """What an Observe option in a request asks for (section 2)."""

    REGISTER = 0
    DEREGISTER = 1


SEQUENCE_MASK: Final = 0xFFFFFF
"""An observation's numbers have 24 bits (section 3.4)."""

Device = tuple[str, str]
"""Alias key and alias."""

_HEAD: Final = ((int(Option.CONTENT_FORMAT), uint(JSON)),)


class Numbers(Protocol):
    """What the listener counts for all."""

    def next_message_id(self) -> int: ...


class Observer:
    """One device, as it asked last."""

    def __init__(self, request: Request, grant: Grant, now_s: float) -> None:
        self.peer = request.peer
        self.token = request.message.token
        self.source = request.source
        self.seal = request.seal
        self.grant = grant
        self.at_s = now_s
        self.message_id = -1
        """Of the notification that it has not acknowledged yet."""
        self.body = b""
        """The command that it was sent last, for those of its blocks that it still fetches."""
        self.fetched: asyncio.Event = asyncio.Event()

    def is_by(self, request: Request) -> bool:
        return self.peer.address == request.peer.address and self.token == request.message.token


class Observers:
    def __init__(
        self,
        confirmables: Confirmables,
        numbers: Numbers,
        now_s: Callable[[], float],
        reachable: Callable[[str, str, float], None],
    ) -> None:
        """`reachable`: told of each registration: alias key, alias, and for how many seconds it lasts."""
        self._confirmables = confirmables
        self._numbers = numbers
        self._now_s = now_s
        self._reachable = reachable
        self._observers: dict[Device, Observer] = {}
        self._locks: dict[Device, asyncio.Lock] = {}
        self._sequence = 1

    def __len__(self) -> int:
        return len(self._observers)

    def asked(self, request: Request, grant: Grant, now_s: float) -> Answer:
        """A GET of a device's commands. Raises MalformedError."""
        message = request.message
        if message.number(Option.ACCEPT) not in (None, JSON):
            return answers.NOT_ACCEPTABLE
        device = (grant.alias_key, grant.alias)
        block = message.block(Option.BLOCK2)
        if block is not None and block.number:
            observer = self._observers.get(device)
            if observer is None:
                return answers.INCOMPLETE
            if block.start + block.size >= len(observer.body):
                observer.fetched.set()
            return part_of(Answer(Code.CONTENT, observer.body, _HEAD), block)
        match message.number(Option.OBSERVE):
            case Observe.REGISTER:
                return self._register(request, device, grant, now_s)
            case Observe.DEREGISTER:
                known = self._observers.get(device)
                if known is not None and known.is_by(request):
                    self._end(device, known)
        return Answer(Code.CONTENT)

    def observes(self, device: Device) -> bool:
        return device in self._observers

    async def send(self, device: Device, command: Command) -> None:
        """Until the device has it all. Raises DeviceAbsentError or DeviceGoneError."""
        lock = self._locks.setdefault(device, asyncio.Lock())
        async with lock:
            observer = self._observers.get(device)
            if observer is None:
                raise DeviceAbsentError(f"{':'.join(device)} does not observe its commands")
            try:
                await self._notify(observer, framed(command, "json"))
            except (DeviceAbsentError, DeviceGoneError):
                self._end(device, observer)
                raise
            observer.at_s = self._now_s()

    def recheck(self, still_holds: Callable[[Grant], bool]) -> None:
        for device, observer in list(self._observers.items()):
            if observer.grant.secret_sha256 and not still_holds(observer.grant):
                self._end(device, observer)

    def forget(self, now_s: float) -> None:
        """Those that have not been heard of for too long, and locks that nobody needs."""
        for device, observer in list(self._observers.items()):
            if now_s - observer.at_s > OBSERVATION_S:
                self._end(device, observer)
        for device, lock in list(self._locks.items()):
            if device not in self._observers and not lock.locked():
                del self._locks[device]

    def _register(self, request: Request, device: Device, grant: Grant, now_s: float) -> Answer:
        """The newest registration of a device counts."""
        known = self._observers.get(device)
        if known is None or not known.is_by(request):
            if known is not None:
                self._end(device, known)
            if len(self._observers) >= OBSERVERS_MAX or request.source.observers >= OBSERVERS_PER_SOURCE_MAX:
                return answers.unavailable("observers_full", "as many devices observe as there may be")
            self._observers[device] = Observer(request, grant, now_s)
            request.source.observers += 1
        else:
            known.at_s, known.seal, known.grant = now_s, request.seal, grant
        self._reachable(*device, OBSERVATION_S)
        return Answer(Code.CONTENT, options=((int(Option.OBSERVE), self._next_sequence()),))

    async def _notify(self, observer: Observer, body: bytes) -> None:
        observer.body = body
        observer.fetched.clear()
        head = ((int(Option.OBSERVE), self._next_sequence()), *_HEAD)
        answer = part_of(Answer(Code.CONTENT, body, head), None)
        if observer.seal is not None:
            answer = observer.seal.close(answer)
        observer.message_id = self._numbers.next_message_id()
        message = Message(
            Kind.CONFIRMABLE, answer.code, observer.message_id, observer.token, answer.options, answer.payload
        )
        await self._confirmables.confirmed(message.encode(), message.message_id, observer.peer)
        if len(body) > BLOCK_BYTES_MAX:
            try:
                async with asyncio.timeout(BLOCKS_S):
                    await observer.fetched.wait()
            except TimeoutError:
                raise DeviceGoneError(f"{observer.peer.host} did not fetch all of it") from None

    def _end(self, device: Device, observer: Observer) -> None:
        if self._observers.get(device) is observer:
            del self._observers[device]
            observer.source.observers -= 1
            self._confirmables.abandon(observer.peer.address, observer.message_id)

    def _next_sequence(self) -> bytes:
        self._sequence = self._sequence + 1 & SEQUENCE_MASK
        return uint(self._sequence)


class CoapWay:
    """To a device that observes its commands; it has one at its acknowledgement."""

    confirms = True

    def __init__(self, observers: Observers, device: Device) -> None:
        self._observers = observers
        self._device = device

    async def send(self, command: Command) -> None:
        await self._observers.send(self._device, command)
