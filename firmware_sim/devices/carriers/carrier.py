"""What carries a device's messages: one connection, or what its protocol has instead. The device itself is the same
whatever it speaks (device.py)."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import ClassVar, Protocol

from firmware_sim.devices.orders import Answer
from firmware_sim.devices.outbox import PACKET_ID_MAX, Outgoing
from firmware_sim.devices.roster import RosterDevice
from firmware_sim.devices.surroundings import DeviceSettings, Runtime


class Owner(Protocol):
    """Whose carrier it is. Each call names the carrier: a late word of an earlier one is to be passed over."""

    def went_up(self, carrier: Carrier) -> None:
        """It takes messages from now on."""

    def acknowledged(self, carrier: Carrier, packet_ids: list[int]) -> None:
        """Of messages and answers; all of one read together."""

    def sent_again(self, carrier: Carrier, message: Outgoing) -> None:
        """By the carrier itself, as its protocol has it."""

    def fetched(self, carrier: Carrier) -> None:
        """What it was given last was read by who polls it."""

    def told(self, carrier: Carrier, name: str, command_id: str) -> Answer | None:
        """A command came; what to answer, once the protocol's own acknowledgement has left."""

    def waits_since_s(self) -> float | None:
        """When the oldest message without an answer was handed over, by the timers' clock."""

    def went_down(self, carrier: Carrier, reason: str, *, refused: bool) -> None:
        """Once for each carrier that was opened. `refused`: the server said no, or broke the protocol."""


class Carrier(abc.ABC):
    """From `open` to `went_down`; never used again. Nothing of it waits but `open`."""

    usual_port: ClassVar[int] = 0
    window_max: ClassVar[int] = PACKET_ID_MAX
    """Messages in flight that it can tell apart."""
    makes_its_place: ClassVar[bool] = False
    """It is where the gateway comes to: what goes wrong in `open` is a mistake of whoever said where."""

    def __init__(self, owner: Owner, identity: RosterDevice, settings: DeviceSettings, runtime: Runtime) -> None:
        self._owner = owner
        self._identity = identity
        self._settings = settings
        self._runtime = runtime
        self._timers = runtime.timers
        self.is_up = False
        self.up_since_s = 0.0
        """0: it never was."""

    @classmethod
    def is_answered(cls, settings: DeviceSettings) -> bool:
        """Whether a device learns what is on the gateway's disk."""
        return True

    @property
    def is_congested(self) -> bool:
        """True while what was sent waits to leave."""
        return False

    @abc.abstractmethod
    async def open(self) -> None:
        """Raises OSError. Whether it is up is told by `went_up`, maybe before this returns and maybe long after."""

    @abc.abstractmethod
    def send(self, messages: Sequence[Outgoing]) -> None:
        """While it is up. A packet id of 0: no answer is wanted."""

    @abc.abstractmethod
    def close(self) -> None:
        """Says goodbye, where the protocol has a word for it, and ends."""

    @abc.abstractmethod
    def abort(self, reason: str) -> None:
        """Ends at once, as a device without power does; one that is still being opened ends when it stands."""

    def listen(self) -> None:  # noqa: B027 - not abstract: most protocols bring them unasked, and do nothing here
        """Asks for commands, where they do not come unasked."""

    @abc.abstractmethod
    def answer(self, answer: Answer, *, again: bool = False) -> None:
        """To a command; `again`: it was sent on an earlier carrier."""

    @property
    def _place(self) -> tuple[str, int]:
        """Host and port of the gateway's listener."""
        identity, settings = self._identity, self._settings
        return identity.host or settings.host, identity.port or settings.port or self.usual_port

    def _stands(self) -> None:
        self.is_up = True
        self.up_since_s = self._timers.now()
        self._owner.went_up(self)
