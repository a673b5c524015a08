"""What a path is for.

    POST, PUT  PATH               a message of the device
    GET        BASE/down          its commands, to be observed
    POST, PUT  BASE/response/ID   its answer to one
    GET        .well-known/core   what there is here (RFC 6690)

PATH fits a template of the listener, and BASE is PATH without an `up` at its end: `sensors/7/up` goes with
`sensors/7/down`, and `7` with `7/down`. A path has no `/` in front.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final

import msgspec

from protocols.coap.numbers import Code
from protocols.limits import NAME_BYTES_MAX, TOPIC_BYTES_MAX
from protocols.templates import NOBODY, Name, Templates

CORE: Final = ".well-known/core"
UP: Final = "up"
DOWN: Final = "down"
RESPONSE: Final = "response"


class Purpose(enum.StrEnum):
    UPLINK = "uplink"
    COMMANDS = "commands"
    RESPONSE = "response"
    CORE = "core"


METHODS: Final = {
    Purpose.UPLINK: (Code.POST, Code.PUT),
    Purpose.COMMANDS: (Code.GET,),
    Purpose.RESPONSE: (Code.POST, Code.PUT),
    Purpose.CORE: (Code.GET,),
}


class Route(msgspec.Struct, frozen=True):
    purpose: Purpose
    name: Name = NOBODY


class Routes:
    def __init__(self, paths: Iterable[str]) -> None:
        """Raises TemplateError."""
        self._paths = Templates(paths)
        bases = [base_of(path) for path in self.templates]
        self._has_root = "" in bases
        self._bases = Templates(base for base in bases if base)

    @property
    def templates(self) -> tuple[str, ...]:
        return tuple(template.text for template in self._paths.all)

    def find(self, path: str) -> Route | None:
        """None: there is no such path. What stands behind a device's base is looked at first, so that a template of any
        depth (`+/#`) leaves room for commands."""
        if path == CORE:
            return Route(Purpose.CORE)
        if not 0 < len(path.encode()) <= TOPIC_BYTES_MAX or "\0" in path:
            return None
        head, _, last = path.rpartition("/")
        base, _, word = head.rpartition("/")
        if last == DOWN and (name := self._base(head)) is not None:
            return Route(Purpose.COMMANDS, name)
        if word == RESPONSE and 0 < len(last.encode()) <= NAME_BYTES_MAX and (name := self._base(base)) is not None:
            return Route(Purpose.RESPONSE, name)
        name = self._paths.match(path)
        return None if name is None else Route(Purpose.UPLINK, name)

    def _base(self, path: str) -> Name | None:
        if path:
            return self._bases.match(path)
        return NOBODY if self._has_root else None


def base_of(template: str) -> str:
    """Empty: commands and answers stand at the root."""
    head, _, last = template.rpartition("/")
    return head if last == UP else template
