"""The way of a command to a device, whatever protocol the device speaks. What went wrong says what to do about it."""

from __future__ import annotations

from typing import Protocol

from protocols.messages import Command


class DeviceAbsentError(Exception):
    """Keep the command: the device cannot take it now (not there, not listening to it, too much under way), and does
    not have it."""


class DeviceGoneError(Exception):
    """Send it again, with the same id, when the device is back: nobody knows whether the device has it."""


class CommandRefusedError(Exception):
    """Fail it, unless another way takes it: sending it again cannot help (too large, a name that no topic can hold,
    refused by the device)."""


class Way(Protocol):
    """From a listener to one device, as things are now: asked for anew for each command."""

    @property
    def confirms(self) -> bool:
        """Whether the protocol says that the device has it. Where it does not (UDP, serial frames, QoS 0), a command
        that was sent stays *sent* until the device itself answers."""
        ...

    async def send(self, command: Command) -> None:
        """Returns when the device's protocol acknowledged it, or, where nothing `confirms`, when it has left. Raises
        DeviceAbsentError, DeviceGoneError or CommandRefusedError. May be cancelled: then the outcome is unknown."""
        ...
