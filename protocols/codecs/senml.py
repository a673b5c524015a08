"""SenML (RFC 8428), as JSON or as CBOR, whichever a payload is: names become attributes, and there is one message for
each time.

Base values (section 4.1) hold until the next ones. An attribute is called as its record's own name `n`, or as the last
part of the base name where it has none; with `alias_path = "bn"` the base name says the device, without the separator
that it ends in. A sum (`s`) is the attribute `<name>_sum`. A value of a name and time that is there already begins
another message.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from protocols.codecs.base import Decoded, Decoder, nothing_decoded
from protocols.codecs.cbor import cbor_parser
from protocols.codecs.json_paths import parse_checked
from protocols.codecs.reader import MessageReader, alias_of
from protocols.codecs.spec import CodecSpec
from protocols.errors import DecodeError
from protocols.limits import MESSAGES_PER_RECORD_MAX, TOPIC_BYTES_MAX

RELATIVE_BELOW_S: Final = 2**28
"""A time below this counts from now (section 4.5.3): seconds, of which a clock that knows the time has more."""
VERSION_MAX: Final = 10
"""Of this standard (section 4.4); a pack of a newer one may mean something else."""
TIME_ABS_MAX_S: Final = 2**43

BASE_NAME: Final = "bn"
_LABELS: Final = {
    -1: "bver", -2: "bn", -3: "bt", -4: "bu", -5: "bv", -6: "bs", 0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb", 5: "s",
    6: "t", 7: "ut", 8: "vd",
}  # fmt: skip
"""CBOR's (section 6)."""
_OF_CBOR: Final = {str(number): label for number, label in _LABELS.items()}
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-:./_]*")
_JSON_STARTS: Final = frozenset(b"[{ \t\r\n")
"""No CBOR array begins like that."""
_SEPARATORS: Final = "-:./_"


class _Base(msgspec.Struct):
    """What holds for the records that follow."""

    name: str = ""
    time: float = 0
    unit: str = ""
    value: float | None = None
    sum: float | None = None


class _Message(msgspec.Struct):
    time_s: float
    base_name: str
    data: dict[str, Any]


class _Series(msgspec.Struct):
    """The messages of one base name and time."""

    messages: list[_Message]
    first_free: dict[str, int]
    """Attribute to the first of them that may be without it."""

    def without(self, names: Iterable[str]) -> _Message | None:
        """The first that has none of them; None: all have one. Looked for from where the last search ended, so that
        thousands of values of one name do not each pass all before them."""
        place = 0
        for name in names:
            own = self.first_free.get(name, 0)
            while own < len(self.messages) and name in self.messages[own].data:
                own += 1
            self.first_free[name] = own
            place = max(place, own)
        while place < len(self.messages) and any(name in self.messages[place].data for name in names):
            place += 1
        return self.messages[place] if place < len(self.messages) else None


def senml_decoder(spec: CodecSpec) -> Decoder:
    """Raises SpecError."""
    by_base_name = spec.alias_path == BASE_NAME
    own_paths = {"alias_path": "" if by_base_name else spec.alias_path, "time_path": "", "messages_path": ""}
    reader = MessageReader(msgspec.structs.replace(spec, **own_paths))
    wanted_units = spec.units
    parse_cbor: Callable[[bytes], Any] | None = None

    def decode(payloads: Sequence[bytes]) -> Decoded:
        nonlocal parse_cbor
        out = nothing_decoded()
        for place, payload in enumerate(payloads):
            try:
                if payload[:1] and payload[0] in _JSON_STARTS:
                    records = parse_checked(payload)
                else:
                    parse_cbor = parse_cbor or cbor_parser()
                    records = _named(parse_cbor(payload))
                units: dict[str, str] = {}
                messages = _messages(records, units)
                _check_units(units, wanted_units)
                _add(reader, out, place, payload, messages, by_base_name)
                out.units.update(units)
            except DecodeError as error:
                out.errors.append((place, error))
        return out

    return decode


def _add(
    reader: MessageReader,
    out: Decoded,
    place: int,
    payload: bytes,
    messages: Sequence[_Message],
    by_base_name: bool,
) -> None:
    relative = [abs(message.time_s) < RELATIVE_BELOW_S for message in messages]
    if any(relative) and not all(relative):
        raise DecodeError("some times count from now, others from 1970: their messages cannot be put in order")
    aliases = [message.base_name.rstrip(_SEPARATORS) for message in messages] if by_base_name else None
    reader.add_all(
        out,
        place,
        payload,
        [message.data for message in messages],
        [None if message.time_s == 0 else round(message.time_s * 1000) for message in messages],
        relative=any(relative),
        aliases=None if aliases is None else [alias_of(alias, BASE_NAME) for alias in aliases],
    )


def _messages(records: Any, units: dict[str, str]) -> list[_Message]:
    if type(records) is not list or not records:
        raise DecodeError("not SenML: an array of records is expected")
    base = _Base()
    found: dict[tuple[float, str], _Series] = {}
    in_order: list[_Message] = []
    for place, record in enumerate(records):
        try:
            if type(record) is not dict:
                raise DecodeError("an object is expected")
            _take_base(base, record)
            values = _values(base, record)
            if not values:
                continue  # base values alone (section 4.1), or `ut`
            time_s = base.time + _number(record, "t", 0)
            if not -TIME_ABS_MAX_S < time_s < TIME_ABS_MAX_S:
                raise DecodeError("t is out of range", path="t")
            name = _attribute(base, record)
            unit = record.get("u", base.unit)
        except DecodeError as error:
            raise DecodeError(f"record {place}: {error.detail}", path=f"[{place}].{error.path}") from None
        if unit and type(unit) is str:
            units[name] = unit
        named = {name + suffix: value for suffix, value in values.items()}
        series = found.setdefault((time_s, base.name), _Series([], {}))
        message = series.without(named)
        if message is None:
            if len(in_order) == MESSAGES_PER_RECORD_MAX:
                raise DecodeError(f"record {place}: more than {MESSAGES_PER_RECORD_MAX} messages in one payload")
            message = _Message(time_s, base.name, {})
            series.messages.append(message)
            in_order.append(message)
        message.data.update(named)
    if not in_order:
        raise DecodeError("a SenML pack without any value")
    return in_order


def _take_base(base: _Base, record: Mapping[str, Any]) -> None:
    for key in record:
        if key.endswith("_"):
            raise DecodeError(f"{key} has to be understood, and is not (section 4.4)", path=key)
    if _number(record, "bver", VERSION_MAX) > VERSION_MAX:
        raise DecodeError(f"bver {record['bver']} is newer than {VERSION_MAX}", path="bver")
    base.name = _text(record, "bn", base.name)
    base.unit = _text(record, "bu", base.unit)
    base.time = _number(record, "bt", base.time)
    if "bv" in record:
        base.value = _number(record, "bv", 0)
    if "bs" in record:
        base.sum = _number(record, "bs", 0)


def _values(base: _Base, record: Mapping[str, Any]) -> dict[str, Any]:
    """Suffix of the attribute's name to value: a value, a sum, both, or nothing."""
    given = [key for key in ("v", "vs", "vb", "vd") if key in record]
    if len(given) > 1:
        raise DecodeError(f"{' and '.join(given)} are given; one value is expected", path=given[1])
    values: dict[str, Any] = {}
    if given:
        value = record[given[0]]
        match given[0]:
            case "v":
                value = _sum(base.value, _number(record, "v", 0))
            case "vs":
                value = _text(record, "vs", "")
            case "vb":
                if type(value) is not bool:
                    raise DecodeError("vb is neither true nor false", path="vb")
            case _:
                value = _data(_text(record, "vd", ""))
        values[""] = value
    if "s" in record:
        values["_sum"] = _sum(base.sum, _number(record, "s", 0))
    if not values and "n" in record:  # what is missing is zero, beside a base (section 4.1)
        if base.value is not None:
            values[""] = base.value
        if base.sum is not None:
            values["_sum"] = base.sum
    return values


def _attribute(base: _Base, record: Mapping[str, Any]) -> str:
    own = _text(record, "n", "")
    if len(base.name) + len(own) > TOPIC_BYTES_MAX:
        raise DecodeError(
            f"a name of {len(base.name) + len(own):,} characters; the limit is {TOPIC_BYTES_MAX}", path="n"
        )
    whole = base.name + own
    if not _NAME.fullmatch(whole):
        what = f"name {whole[:60]!r} is not made of letters, digits and -:./_" if whole else "no name: neither n nor bn"
        raise DecodeError(what, path="n")
    return own or re.split("[:/]", base.name.rstrip(_SEPARATORS))[-1]


def _named(records: Any) -> Any:
    """CBOR's labels as JSON has them."""
    if type(records) is not list:
        return records
    return [
        {_OF_CBOR.get(key, key): value for key, value in record.items()} if type(record) is dict else record
        for record in records
    ]


def _number(record: Mapping[str, Any], key: str, default: float) -> float:
    value = record.get(key, default)
    if type(value) is int and value.bit_length() > 64:
        raise DecodeError(f"{key} is out of range", path=key)
    if type(value) is not int and (type(value) is not float or not math.isfinite(value)):
        raise DecodeError(f"{key} is no number", path=key)
    return value


def _sum(base: float | None, value: float) -> float:
    total = (base or 0) + value
    if not math.isfinite(total):
        raise DecodeError("the sum of value and base value is out of range", path="v")
    return total


def _text(record: Mapping[str, Any], key: str, default: str) -> str:
    value = record.get(key, default)
    if type(value) is not str:
        raise DecodeError(f"{key} is no text", path=key)
    return value


def _data(text: str) -> str:
    """Checked, and kept as the text that it is: base64url."""
    try:
        base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise DecodeError("vd is not base64url", path="vd") from None
    return text


def _check_units(found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    for name, unit in wanted.items():
        if found.get(name, unit) != unit:
            raise DecodeError(f"{name} is in {found[name]}; the network's codec says {unit}", path="u")
