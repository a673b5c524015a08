"""What a request is for, by its method and path.

    POST  PATH                       a message of the device
    GET   PATH/down?wait=SECONDS     the device's next command
    POST  PATH/down/ID/received      the device has the command
    POST  PATH/response/ID           the device's answer to it

PATH fits a template of the listener. A path is decoded, and has no `/` in front.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from protocols.limits import NAME_BYTES_MAX, TOPIC_BYTES_MAX
from protocols.templates import Name, Templates

WAIT_S_MAX: Final = 300
"""Of a poll: proxies between close what is silent for longer."""

WAIT_S_DEFAULT: Final = 30


class Purpose(enum.StrEnum):
    UPLINK = "uplink"
    POLL = "poll"
    RECEIVED = "received"
    RESPONSE = "response"


_METHODS: Final = {
    Purpose.UPLINK: ("POST", "PUT"),
    Purpose.POLL: ("GET",),
    Purpose.RECEIVED: ("POST", "PUT"),
    Purpose.RESPONSE: ("POST", "PUT"),
}


class Route(msgspec.Struct, frozen=True):
    purpose: Purpose
    name: Name
    command_id: str = ""

    @property
    def methods(self) -> tuple[str, ...]:
        return _METHODS[self.purpose]


def route(templates: Templates, path: str) -> Route | None:
    """None: there is no such path. What stands behind a device's path is looked at first, so that a template of any
    depth (`+/#`) leaves room for commands."""
    if not 0 < len(path.encode()) <= TOPIC_BYTES_MAX or "\0" in path:
        return None
    levels = path.split("/")
    for purpose, depth, command_id in _behind(levels):
        name = templates.match("/".join(levels[:-depth]))
        if name is not None:
            return Route(purpose, name, command_id)
    name = templates.match(path)
    return None if name is None else Route(Purpose.UPLINK, name)


def _behind(levels: list[str]) -> list[tuple[Purpose, int, str]]:
    """What the last levels may mean: purpose, how many they are, the command's id."""
    match levels:
        case [_, *_, "down"]:
            return [(Purpose.POLL, 1, "")]
        case [_, *_, "down", command_id, "received"] if _is_id(command_id):
            return [(Purpose.RECEIVED, 3, command_id)]
        case [_, *_, "response", command_id] if _is_id(command_id):
            return [(Purpose.RESPONSE, 2, command_id)]
    return []


def _is_id(text: str) -> bool:
    return 0 < len(text.encode()) <= NAME_BYTES_MAX


def wait_s(text: str) -> int | None:
    """Of a poll's `wait`; None: it is no number of seconds that is allowed."""
    if not text:
        return WAIT_S_DEFAULT
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 4 and int(text) <= WAIT_S_MAX else None
