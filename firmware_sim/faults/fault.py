"""What can be wrong with a link: one fault at a time, for as long as it is told or until it is told otherwise.

none         nothing
cut          every connection is reset, and each new one
black_hole   bytes are taken and not given on, as by a half-open connection. What it swallowed is missing, so the
             connections that it is missing from are reset when the fault ends
stall        nothing is taken; what waits goes on when the fault ends
delay        each byte comes `delay_ms` later
throttle     `bytes_per_s` get through each way, of all connections together
loss         as packets that are lost look from above: every `every_s` on average a connection stands still for a
             random while, each time longer than a round trip, or is reset
flap         the link is cut for a random while and whole for another, both `every_s` / 2 on average
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec


class Kind(enum.StrEnum):
    NONE = "none"
    CUT = "cut"
    BLACK_HOLE = "black_hole"
    STALL = "stall"
    DELAY = "delay"
    THROTTLE = "throttle"
    LOSS = "loss"
    FLAP = "flap"


class Direction(enum.StrEnum):
    BOTH = "both"
    UP = "up"
    DOWN = "down"


class Fault(msgspec.Struct, frozen=True):
    """What is wrong with the link. `direction` says for which way (a cut, loss and flapping are always for both)."""

    kind: Kind = Kind.NONE
    direction: Direction = Direction.BOTH
    delay_ms: Annotated[float, msgspec.Meta(ge=0, le=60_000)] = 0.0
    seconds: Annotated[float, msgspec.Meta(gt=0, le=86_400)] | None = None
    """How long; None: until another fault, or none, is set."""
    by: Annotated[str, msgspec.Meta(max_length=80)] = ""
    """Who set it."""
    bytes_per_s: Annotated[int, msgspec.Meta(ge=100, le=1_000_000_000)] = 8_000
    """Of a throttle: 8,000 are 64 kbit/s."""
    every_s: Annotated[float, msgspec.Meta(ge=0.01, le=3_600)] = 2.0
    """Of loss and flapping."""

    def at(self, direction: Direction) -> Kind:
        """The kind of fault that one way of a connection suffers."""
        if self.kind is Kind.CUT or self.direction in (Direction.BOTH, direction):
            return self.kind
        return Kind.NONE


class ProxyState(msgspec.Struct, frozen=True):
    fault: Kind
    direction: Direction
    remaining_s: float | None
    """Until the fault ends by itself."""
    by: str
    """Who set the fault; empty without one."""
    connections: int
    accepted: int
    """Connections so far, those refused or reset at once included."""
    bytes_up: int
    bytes_down: int
    bytes_swallowed: int
    cuts: int = 0
    """How often the link was cut, by a cut or by flapping."""
    losses: int = 0
    """How often a connection stood still or was reset by loss."""
