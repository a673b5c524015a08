"""How a network's payloads are read: one vocabulary for the registry, the REST API, configuration and commands.

Names of codecs, types and units are plain text here: a registry that a newer cloud wrote can be read by an older
gateway, which only says of those networks that it cannot decode them. check.py says what is wrong with a spec.
"""

from __future__ import annotations

import msgspec


class LayoutBits(msgspec.Struct, frozen=True, omit_defaults=True):
    """Some bits of a field of whole numbers."""

    name: str
    at: int
    """The lowest of them; 0 is the least significant bit of the field."""
    count: int = 1
    """One bit is true or false, several are a number."""
    signed: bool = False
    """Two's complement."""
    scale: float = 1
    offset: float = 0
    unit: str = ""
    values: dict[str, str] = {}
    absent: int | None = None


class LayoutField(msgspec.Struct, frozen=True, omit_defaults=True):
    """Some bytes of a payload. What it becomes: (raw × scale + offset), or the text that `values` has for raw."""

    name: str = ""
    """The attribute; empty: it is read and not kept."""
    type: str = "u8"
    """u8, u16, u24, u32, u48, u64, i8, … i64, f16, f32, f64, bool, string, bytes (as hexadecimal text), bcd (a number),
    skip, or group."""
    length: int | str = 0
    """Bytes of string, bytes, bcd, skip; a name: the earlier field that holds it; 0: all that is left."""
    endian: str = ""
    """big or little; empty: as the layout says."""
    bits: tuple[LayoutBits, ...] = ()
    """What the bits of a whole number mean."""
    scale: float = 1
    offset: float = 0
    digits: int | None = None
    """Rounded to so many digits behind the point."""
    unit: str = ""
    values: dict[str, str] = {}
    """Raw whole number, as text, to what it means."""
    absent: int | None = None
    """The raw value that means that there is none: the attribute is left out."""
    when: str = ""
    """Only there if this holds of an earlier field's raw value: `kind == 2`, `flags & 4`, also != < <= > >=."""
    time: str = ""
    """It is the message's time, in this unit: s, ms, us, ns, min."""
    epoch: str = ""
    """What that time counts from: RFC 3339; empty: 1970; `received`; `ago`: back from when it was received."""
    repeat: int | str = 1
    """So many of them, as an array; a name: the earlier field that holds the number; `end`: until the payload ends."""
    fields: tuple[LayoutField, ...] = ()
    """What a group is made of."""
    messages: bool = False
    """Each of a group is a message of its own, beside the fields outside of the group."""
    step_s: float | str = 0
    """Seconds from one of a group's messages to the next, where they have no time of their own; a name: the earlier
    field that holds it."""


class Layout(msgspec.Struct, frozen=True, omit_defaults=True):
    """A binary payload, field by field from its first byte on."""

    fields: tuple[LayoutField, ...]
    endian: str = "big"
    rest: str = "refuse"
    """What to do with bytes behind the last field: refuse or ignore."""
    checksum: str = ""
    """A CRC by its catalogue name, at the end of the payload and over all before it; empty: none."""
    checksum_order: str = ""
    """big or little; empty: as is usual for that CRC."""


class CodecSpec(msgspec.Struct, frozen=True):
    """How a network's payloads are read. Paths are dotted names: `meta.serial`. Part of a network in the registry."""

    codec: str = "json"
    alias_path: str = ""
    """Where a payload names its device; empty: the device is the one that connected, or the topic's."""
    key_paths: tuple[str, ...] = ()
    """Where a payload holds its message key, boot and sequence, say; empty: none."""
    time_path: str = "time"
    """Where a payload holds the device's time; empty: nowhere."""
    time_unit: str = ""
    """Of a time that is a number: s, ms, us, ns, min; empty: Unix seconds below 10^11, else Unix milliseconds."""
    time_epoch: str = ""
    """What such a time counts from: RFC 3339; empty: 1970; `received`: the moment of reception; `ago`: back from it."""
    time_zone: str = ""
    """Of times in text that name none: UTC or +01:00; empty: such times are refused."""
    messages_path: str = ""
    """Where a payload holds an array of messages; what stands beside it belongs to each of them. Empty: the payload is
    a message, or an array of them."""
    attributes: dict[str, str] = {}
    """Attribute to the path of its value; empty: everything, under the payload's own names."""
    units: dict[str, str] = {}
    """Attribute to its unit. A payload that names another unit is refused."""
    columns: tuple[str, ...] = ()
    """csv: names of the columns, `-` for one that is not kept; empty: the first row says them."""
    types: dict[str, str] = {}
    """csv, key-value: attribute to number, text or boolean; else a value is what it looks like."""
    delimiter: str = ""
    """Between values; empty: a comma (csv); blanks, commas, semicolons, ampersands (key-value)."""
    assign: str = "="
    """key-value: between name and value."""
    decimal: str = "."
    """csv, key-value: the decimal point, or a comma."""
    layout: Layout | None = None
    """layout: the fields of a binary payload."""


class SpecError(Exception):
    """A spec that cannot work. `field` names what is wrong: `layout.fields[2].type`."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.detail = detail
