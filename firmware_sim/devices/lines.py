"""What a gateway says on a line of frames: `OK 17` for the 17th frame that is on its disk, and commands as JSON. Pure.

An acknowledgement names no message: it is of the oldest frame without one, and its number, where it has one, must be
the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from firmware_sim.devices.orders import Answer
from firmware_sim.devices.outbox import Outgoing
from firmware_sim.devices.packets import COMMAND_BYTES_MAX, ProtocolError

END: Final = b"\n"
_OK: Final = b"OK"


class Ordered(msgspec.Struct, frozen=True):
    """A command."""

    command: str
    id: str
    payload: Any = None


class LineReader:
    """Takes bytes in any portions, gives what whole lines say."""

    def __init__(self) -> None:
        self._rest = b""
        self._acknowledged = 0

    def feed(self, data: bytes) -> tuple[int, Sequence[Ordered]]:
        """How many more frames are acknowledged, and the commands. Raises ProtocolError."""
        *lines, self._rest = (self._rest + data).split(END)
        if len(self._rest) > COMMAND_BYTES_MAX:
            raise ProtocolError(f"a line of more than {COMMAND_BYTES_MAX:,} bytes")
        before = self._acknowledged
        orders: list[Ordered] = []
        for line in lines:
            if is_ok(line):
                self._acknowledged += 1
                number = line.removeprefix(_OK).strip()
                if number and number != b"%d" % self._acknowledged:
                    raise ProtocolError(f"{line.decode()!r} is not the answer to frame {self._acknowledged}")
            else:
                orders.append(ordered(line))
        return self._acknowledged - before, orders


def is_ok(line: bytes) -> bool:
    """`OK`, or `OK` and a number."""
    head, _, number = line.strip().partition(b" ")
    return head == _OK and (not number or number.isdigit())


def ordered(line: bytes) -> Ordered:
    """Raises ProtocolError."""
    try:
        return msgspec.json.decode(line, type=Ordered)
    except msgspec.MsgspecError:
        raise ProtocolError(f"neither OK nor a command: {line[:40]!r}") from None


def frame_of(item: object) -> bytes:
    """Its payload. `item`: a message, or an answer."""
    if isinstance(item, Answer):
        return msgspec.json.encode({"response": item.command_id, **item.body})
    assert isinstance(item, Outgoing)
    return item.payload
