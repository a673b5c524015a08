"""Commands to devices, as the gateway shows them."""

from __future__ import annotations

from typing import Final

import msgspec

from edge.commands import CommandQueue
from sync.registry import Registry

SHOWN_MAX: Final = 1000
"""The newest of those that have ended, and as many of those that wait: 400 kB."""


class CommandShown(msgspec.Struct, frozen=True):
    id: str
    device_id: int
    device: str
    """Its first alias, `network:key:alias`; its id where the registry does not know it any more."""
    name: str
    state: str
    waits: bool
    text: str
    """Why it came to its state, or what it waits for."""
    deadline: int
    came_ms: int
    state_ms: int
    left_ms: int
    """To the deadline, now; below 0: it has passed."""
    sends: int
    """How often it left for the device."""
    is_told: bool
    """Whether the cloud has said that it has this state."""


class CommandsShown(msgspec.Struct, frozen=True):
    commands: list[CommandShown]
    """The newest first."""


def commands_shown(queue: CommandQueue, registry: Registry, now_ms: int) -> CommandsShown:
    """`now_ms`: true time."""
    open_ones = [held for held in queue.held.values() if not held.has_ended][-SHOWN_MAX:]
    ended = [held for held in queue.held.values() if held.has_ended][-SHOWN_MAX:]
    return CommandsShown(
        [
            CommandShown(
                held.id,
                held.device_id,
                _name(registry, held.device_id),
                held.name,
                held.state.value,
                not held.has_ended,
                held.text,
                held.deadline,
                held.came_ms,
                held.state_ms,
                held.deadline - now_ms,
                held.sends,
                held.kept == held.state,
            )
            for held in sorted((*open_ones, *ended), key=lambda held: held.came_ms, reverse=True)
        ]
    )


def _name(registry: Registry, device_id: int) -> str:
    device = registry.devices.get(device_id)
    if device is None or not device.aliases:
        return f"device {device_id}"
    alias = device.aliases[0]
    return f"{alias.network_id}:{alias.alias_key}:{alias.alias}"
