"""How a network's payloads are read, as the API takes and shows it (protocols/codecs/spec.py)."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from pydantic import Field

from cloud.api.fields import Body
from cloud.api.problems import invalid
from protocols.codecs import CODECS, CodecSpec, SpecError
from protocols.codecs.check import check_spec
from protocols.codecs.layout_values import TYPES

FIELDS_MAX: Final = 256
"""Items of one list in a body; check.py says what is too much of the whole."""
DotPath = Annotated[str, Field(max_length=200)]
Word = Annotated[str, Field(max_length=200)]
Raw = Annotated[int, Field(ge=-(2**63), le=2**64 - 1)]
Names = Annotated[dict[Word, Word], Field(max_length=512)]
Number = Annotated[float, Field(allow_inf_nan=False)]
KNOWN: Final = tuple(name for name in CODECS if name != "envelope")
"""What people may choose; `envelope` is what HTTP ingest records."""


class LayoutBits(Body):
    """Some bits of a field of whole numbers."""

    name: Word = Field(examples=["alarm"])
    at: int = Field(ge=0, le=63, description="The lowest of them; 0 is the least significant.", examples=[0])
    count: int = Field(default=1, ge=1, le=64, description="One bit is true or false, several are a number.")
    signed: bool = Field(default=False, description="Two's complement.")
    scale: Number = 1
    offset: Number = 0
    unit: Word = ""
    values: Names = Field(default={}, examples=[{}])
    absent: Raw | None = None


class LayoutField(Body):
    """Some bytes of a payload; what it becomes: raw × scale + offset, or the text that `values` has for raw."""

    name: Word = Field(default="", description="The attribute; empty: read, not kept.", examples=["temperature"])
    type: Word = Field(default="u8", description=f"One of {', '.join(TYPES)}.", examples=["i16"])
    length: int | Word = Field(
        default=0,
        description="Bytes of string, bytes, bcd, skip; a name: the earlier field that holds it; 0: all that is left.",
    )
    endian: Word = Field(default="", description="big or little; empty: as the layout says.")
    bits: list[LayoutBits] = Field(default=[], max_length=64, description="What the bits of a whole number mean.")
    scale: Number = Field(default=1, examples=[0.1])
    offset: Number = Field(default=0, examples=[0])
    digits: int | None = Field(default=None, ge=0, le=15, description="Rounded to so many behind the point.")
    unit: Word = Field(default="", examples=["Cel"])
    values: Names = Field(
        default={}, description="Raw whole number to its meaning.", examples=[{"0": "off", "1": "on"}]
    )
    absent: Raw | None = Field(default=None, description="The raw value that means none: the attribute is left out.")
    when: Word = Field(
        default="",
        description="Only there if this holds of an earlier field's raw value: `kind == 2`, `flags & 4`.",
    )
    time: Word = Field(default="", description="It is the message's time, in s, ms, us, ns or min.")
    epoch: Word = Field(
        default="",
        description="What that time counts from: RFC 3339; empty: 1970; `received`: when it was received; `ago`: back "
        "from then.",
    )
    repeat: int | Word = Field(
        default=1,
        description="So many, as an array; a name: the earlier field that holds the number; `end`: until the end.",
    )
    fields: list[LayoutField] = Field(default=[], max_length=FIELDS_MAX, description="What a group is made of.")
    messages: bool = Field(default=False, description="Each of a group is a message of its own.")
    step_s: Number | Word = Field(
        default=0.0, description="Seconds from one of a group's messages to the next; a name: the field that holds it."
    )


class Layout(Body):
    """A binary payload, field by field."""

    fields: list[LayoutField] = Field(
        max_length=FIELDS_MAX,
        examples=[
            [
                {"name": "temperature", "type": "i16", "scale": 0.1, "unit": "Cel"},
                {"name": "humidity", "type": "u8", "unit": "%RH"},
            ]
        ],
    )
    endian: Word = Field(default="big", description="big or little.")
    rest: Word = Field(default="refuse", description="Bytes behind the last field: refuse or ignore.")
    checksum: Word = Field(default="", description="A CRC at the end, by its catalogue name, such as CRC-16/MODBUS.")
    checksum_order: Word = Field(default="", description="big or little; empty: as is usual for that CRC.")


class Codec(Body):
    """How payloads are read. Paths are dotted names, such as `meta.serial`."""

    codec: Word = Field(default="json", description=f"One of {', '.join(KNOWN)}.", examples=["json"])
    alias_path: DotPath = Field(
        default="",
        description="Where a payload names its device; empty: who connected, or the topic. Of senml, `bn` is the base "
        "name.",
    )
    key_paths: list[DotPath] = Field(
        default=[],
        max_length=FIELDS_MAX,
        description="Where a payload holds its message key: the same key is stored once. Empty: none.",
        examples=[["boot", "seq"]],
    )
    time_path: DotPath = Field(default="time", description="Where a payload holds the device's time; empty: nowhere.")
    time_unit: Word = Field(
        default="",
        description="Of a time that is a number: s, ms, us, ns, min; empty: Unix seconds below 10^11, else Unix "
        "milliseconds.",
    )
    time_epoch: Word = Field(
        default="",
        description="What such a time counts from: RFC 3339; empty: 1970; `received`; `ago`: back from when it was "
        "received.",
    )
    time_zone: Word = Field(default="", description="Of times in text that name none: UTC or +01:00; empty: refused.")
    messages_path: DotPath = Field(
        default="",
        description="Where a payload holds an array of messages; what stands beside it belongs to each of them.",
    )
    attributes: Names = Field(
        default={},
        description="Attribute to the path of its value; empty: everything, under the payload's own names.",
        examples=[{}],
    )
    units: Names = Field(
        default={},
        description="Attribute to its unit. A payload that names another one is refused.",
        examples=[{"temperature": "Cel"}],
    )
    columns: list[Word] = Field(
        default=[],
        max_length=512,
        description="csv: the columns, `-` for one that is not kept; empty: the first row says them.",
    )
    types: Names = Field(
        default={}, description="csv, key-value: attribute to number, text or boolean; else as it looks.", examples=[{}]
    )
    delimiter: Word = Field(
        default="", description="Between values; empty: a comma (csv), or any usual mark (key-value)."
    )
    assign: Word = Field(default="=", description="key-value: between name and value.")
    decimal: Word = Field(default=".", description="csv, key-value: the decimal point, or a comma.")
    layout: Layout | None = Field(default=None, description="layout: the fields of a binary payload.")


def spec_of(codec: Codec) -> CodecSpec:
    """Raises a problem that names the field, where it cannot work."""
    given: dict[str, Any] = codec.model_dump()
    try:
        spec = msgspec.convert(given, CodecSpec)
        check_spec(spec)
    except SpecError as error:
        raise invalid(f"codec.{error.field}", error.detail) from None
    except msgspec.ValidationError as error:
        raise invalid("codec", str(error)) from None
    return spec


def shown(spec: CodecSpec) -> Codec:
    return Codec.model_validate(msgspec.to_builtins(spec))
