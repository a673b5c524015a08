"""The configuration of a Modbus line and its units."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from edge.listeners.config import ListenerConfig, Needs, PriorityName, Socket, device_of
from protocols.codecs.registers import COILS, DISCRETE, HOLDING, INPUT, REGISTERS_MAX, Register
from protocols.codecs.spec import LayoutField

UNITS_MAX: Final = 247
"""Addresses of a serial line (Modbus over serial line, section 2.2)."""

READ_MAX: Final = 125
"""Registers in one answer (Modbus application protocol, section 6.3); coils may be sixteen times as many."""

Kind = Literal["coil", "discrete", "holding", "input"]

FUNCTIONS: Final = {"coil": COILS, "discrete": DISCRETE, "holding": HOLDING, "input": INPUT}

_FINITE_MAX: Final = 1e30


class RegisterConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands in a register, or in several."""

    name: Annotated[str, Meta(min_length=1, max_length=128, description="The attribute; unique in its unit.")]
    address: Annotated[int, Meta(ge=0, le=65_535, description="As it is on the wire, from 0: 40001 in a manual is 0.")]
    kind: Annotated[Kind, Meta(description="Which of the unit's four tables it is in.")] = "holding"
    type: Annotated[
        Literal[
            "", "bool", "u16", "i16", "u32", "i32", "u48", "i48", "u64", "i64", "f16", "f32", "f64", "string", "bcd"
        ],
        Meta(description="As in a layout; empty: bool of coils and discrete inputs, else u16."),
    ] = ""
    word_order: Annotated[
        Literal["big", "little"], Meta(description="Of several registers: big: the first has the highest part.")
    ] = "big"
    length: Annotated[int, Meta(ge=0, le=2 * READ_MAX, description="Bytes of a string or bcd, two a register.")] = 0
    scale: Annotated[float, Meta(ge=-_FINITE_MAX, le=_FINITE_MAX, description="The value is raw × scale + offset.")] = 1
    offset: Annotated[float, Meta(ge=-_FINITE_MAX, le=_FINITE_MAX, description="Added to the scaled value.")] = 0
    digits: Annotated[
        int | None, Meta(description="Digits behind the point that the value is rounded to; not set: as they come.")
    ] = None
    unit: Annotated[str, Meta(max_length=32, description="Unit of the value.")] = ""
    values: Annotated[dict[str, str], Meta(description="Raw whole numbers, as text, to what they mean.")] = {}
    absent: Annotated[int | None, Meta(description="Raw value that means that there is none.")] = None
    write: Annotated[bool, Meta(description="Commands may set it: a coil or a holding register.")] = False

    def __post_init__(self) -> None:
        if self.write and self.kind not in ("coil", "holding"):
            raise ValueError(f"write: {self.name!r} is read-only, as it is of kind {self.kind}")
        if not self.register.is_whole:
            raise ValueError(
                f"type: {self.type!r} of {self.name!r} does not fit kind {self.kind}: coil and discrete are bool, "
                "others whole registers, and a string or bcd has an even length"
            )
        if self.scale == 0:
            raise ValueError(f"scale: of {self.name!r} is 0")

    @property
    def register(self) -> Register:
        """As records hold it."""
        bits = self.kind in ("coil", "discrete")
        field = LayoutField(
            self.name,
            self.type or ("bool" if bits else "u16"),
            length=self.length,
            scale=self.scale,
            offset=self.offset,
            digits=self.digits,
            unit=self.unit,
            values=self.values,
            absent=self.absent,
        )
        return Register(FUNCTIONS[self.kind], self.address, field, self.word_order == "little")


class UnitConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One unit of the line: one device."""

    unit: Annotated[int, Meta(ge=0, le=255, description="Its address; of a device with TCP of its own often 1 or 255.")]
    device: Annotated[str, Meta(min_length=1, description="Whose values they are, as KEY:ALIAS.")]
    registers: Annotated[
        tuple[RegisterConfig, ...],
        Meta(min_length=1, max_length=REGISTERS_MAX, description="What is read; neighbours in one request."),
    ]
    interval_s: Annotated[float, Meta(ge=0, le=86_400, description="From one poll to the next; 0: the line's.")] = 0
    read_max: Annotated[
        int, Meta(ge=1, le=READ_MAX, description="Registers that it gives at once; coils may be sixteen times as many.")
    ] = READ_MAX
    gap_max: Annotated[
        int,
        Meta(
            ge=0, le=READ_MAX, description="Registers that are read along between two wanted ones, to save a request."
        ),
    ] = 0

    def __post_init__(self) -> None:
        device_of(self.device)
        names = [register.name for register in self.registers]
        for register in self.registers:
            if names.count(register.name) > 1:
                raise ValueError(f"registers: two are named {register.name!r}")
            if register.register.count > self.read_max:
                raise ValueError(f"read_max: {register.name!r} alone takes {register.register.count} registers")


class ModbusConfig(ListenerConfig, frozen=True, kw_only=True):
    """A Modbus line: units that the gateway polls, over TCP or a serial port."""

    host: Annotated[str, Meta(description="Modbus TCP: name or address of the device or its gateway.")] = ""
    port: Annotated[int, Meta(ge=1, le=65_535, description="Modbus TCP: its port.")] = 502
    serial: Annotated[
        str, Meta(description="Modbus RTU: the serial port, best by a name that stays: /dev/serial/by-id/…")
    ] = ""
    baud: Annotated[int, Meta(ge=300, le=4_000_000, description="Bits a second.")] = 19_200
    parity: Annotated[Literal["even", "odd", "none"], Meta(description="With none, 2 stop bits are usual.")] = "even"
    stop_bits: Annotated[Literal[1, 2], Meta(description="Stop bits.")] = 1
    interval_s: Annotated[float, Meta(ge=0.05, le=86_400, description="From one poll of a unit to the next.")] = 10.0
    timeout_s: Annotated[float, Meta(ge=0.01, le=60, description="For a unit to answer.")] = 1.0
    retries: Annotated[int, Meta(ge=0, le=10, description="Further attempts where it does not.")] = 2
    codec: Annotated[
        Literal["registers", "layout"],
        Meta(
            description="Of the records. registers: the map goes with them; layout: they hold the bytes of all "
            "registers in the order of the map, and the network's layout says what they mean."
        ),
    ] = "registers"
    priority: Annotated[PriorityName, Meta(description="Of the records.")] = "telemetry"
    units: Annotated[
        tuple[UnitConfig, ...], Meta(min_length=1, max_length=UNITS_MAX, description="Who is polled, in this order.")
    ]

    @property
    def needs(self) -> Needs:
        if self.serial:
            return Needs(serial_ports=(self.serial,))
        return Needs(peers=(Socket(self.host, self.port),))

    def __post_init__(self) -> None:
        if bool(self.host) == bool(self.serial):
            raise ValueError("host and serial: one of them says where the line is, and the other is left out")
        addresses = [unit.unit for unit in self.units]
        for address in addresses:
            if addresses.count(address) > 1:
                raise ValueError(f"units: two have the address {address}")
