"""Which requests read all registers of a unit: neighbours together, within what one answer holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from protocols.codecs.registers import BITS, Register

BITS_PER_REGISTER: Final = 16
"""Coils in the room of a register: 2,000 fit in one answer, as 125 registers do (Modbus application protocol, 6.1)."""


class Read(msgspec.Struct, frozen=True):
    """One request."""

    function: int
    address: int
    count: int


def plan(registers: Sequence[Register], *, read_max: int, gap_max: int) -> list[Read]:
    """In the order of function and address. A register is never split. `read_max`, `gap_max`: in registers."""
    reads: list[Read] = []
    for register in sorted(registers, key=lambda each: (each.function, each.address)):
        end = register.address + register.count
        room = read_max * BITS_PER_REGISTER if register.function in BITS else read_max
        last = reads[-1] if reads else None
        if (
            last is not None
            and last.function == register.function
            and register.address <= last.address + last.count + gap_max
            and max(end, last.address + last.count) - last.address <= room
        ):
            reads[-1] = Read(last.function, last.address, max(end, last.address + last.count) - last.address)
        else:
            reads.append(Read(register.function, register.address, register.count))
    return reads
