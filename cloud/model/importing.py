"""Files of past telemetry: how their lines become messages. Pure."""

from __future__ import annotations

import csv
import datetime
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

import msgspec

from cloud.model.buckets import AskedError, parse_zone
from protocols.batch import check_origin
from protocols.codecs import CodecSpec, Decoder, SpecError, decoder_of
from protocols.codecs.csv_rows import NOT_KEPT, csv_decoder
from protocols.codecs.device_time import MS_PER_UNIT, time_ms
from protocols.errors import DecodeError, LimitError
from protocols.messages import Origin
from protocols.times import DEVICE_TIME_AHEAD_MAX_MS, DEVICE_TIME_MIN_MS

LINE_BYTES_MAX: Final = 64 * 1024
"""One line: a message, not a document."""
CHUNK_BYTES: Final = 64 * 1024
"""Of a file, cut at lines: what one step of the job reads, some 1,000 messages."""
DELIMITERS: Final = (",", ";", "\t", "|")
_PARSED: Final = msgspec.json.Decoder(dict[str, Any]).decode


class ImportMapping(msgspec.Struct, frozen=True):
    """What the columns of a file mean; of NDJSON, a column is a name of each object."""

    format: Literal["csv", "ndjson"] = "csv"
    delimiter: str = ","
    decimal: str = "."
    network_id: str = ""
    network_column: str = ""
    alias_key: str = ""
    """Empty, and no column: the network's."""
    alias_key_column: str = ""
    alias: str = ""
    alias_column: str = ""
    time_column: str = "time"
    time_format: str = ""
    """Empty: RFC 3339, Unix milliseconds or seconds; s, ms, us, ns, min: a number of these since 1970; else as strptime
    writes it."""
    time_zone: str = "UTC"
    """Of times that name none."""
    attributes: dict[str, str] = {}
    """Attribute to column; empty: all that are left, under their own names."""
    types: dict[str, str] = {}
    """Column to number, text or boolean; else as it looks."""
    key: Literal["line", "payload"] = "line"
    """line: the same line of a device is stored once, whichever files hold it, however often they are run; payload: the
    network's message key says what is the same."""


class Chunk(msgspec.Struct, frozen=True):
    """Some lines of a file, and where their messages go."""

    first_line: int
    data: bytes
    head: bytes
    """The file's first line."""
    source_id: int


class LineProblem(msgspec.Struct, frozen=True):
    """A line that cannot be read."""

    line: int
    detail: str
    text: str


class MappingError(Exception):
    """It cannot work; `field` says which part of it."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.detail = detail


class Line(msgspec.Struct, frozen=True):
    """A message that a line holds."""

    network_id: str
    alias_key: str
    """Empty: the network's."""
    alias: str
    time_ms: int
    data: bytes
    """A JSON object."""


class LineReader:
    def __init__(self, mapping: ImportMapping, head: bytes) -> None:
        """`head`: the file's first line. Raises MappingError."""
        self._mapping = mapping
        self._names = dict(
            zip(
                ("network_id", "alias_key", "alias"),
                (mapping.network_column, mapping.alias_key_column, mapping.alias_column),
                strict=True,
            )
        )
        self._check()
        columns = tuple(columns_of(head, mapping.delimiter)) if mapping.format == "csv" else ()
        wanted = {"time_column": mapping.time_column, **{f"{n}_column": c for n, c in self._names.items() if c}}
        for field, column in (*wanted.items(), *(("attributes", column) for column in mapping.attributes.values())):
            if columns and column not in columns:
                raise MappingError(field.replace("_id_column", "_column"), f"the file has no column {column!r}")
        self._zone = _zone(mapping.time_zone)
        self._apart = {mapping.time_column, *filter(None, self._names.values())}
        self._decode = self._decoder(columns)

    def read(self, lines: Sequence[bytes], now_ms: int) -> list[Line | str]:
        """What each line holds, or what is wrong with it."""
        decoded = self._decode(lines)
        found: list[Line | str] = ["it holds no message"] * len(lines)
        for place, error in decoded.errors:
            found[place] = error.detail.removeprefix("line 1: ")
        for row, place in enumerate(decoded.place):
            if decoded.index[row]:
                found[place] = "it holds several messages; one a line is expected"
                continue
            try:
                found[place] = self._line(_PARSED(decoded.data[row]), now_ms)
            except DecodeError as error:
                found[place] = error.detail
        return found

    def _check(self) -> None:
        mapping = self._mapping
        for name, column in self._names.items():
            if column and getattr(mapping, name):
                raise MappingError(name, "goes without a column for it")
        for name, field in (("network_id", "network_id"), ("alias", "alias")):
            if not getattr(mapping, name) and not self._names[name]:
                raise MappingError(field, "is missing: name one, or the column that has it")
        if len(mapping.delimiter) != 1 or mapping.delimiter in '"\r\n' or mapping.delimiter == mapping.decimal:
            raise MappingError("delimiter", f"{mapping.delimiter!r} cannot separate values; one character is expected")
        if not mapping.time_column:
            raise MappingError("time_column", "is missing")
        if mapping.time_format and mapping.time_format not in MS_PER_UNIT and "%" not in mapping.time_format:
            known = ", ".join(MS_PER_UNIT)
            raise MappingError("time_format", f"is one of {known}, or a pattern such as %d.%m.%Y %H:%M:%S")

    def _decoder(self, columns: tuple[str, ...]) -> Decoder:
        mapping = self._mapping
        if mapping.format == "ndjson":
            return decoder_of(CodecSpec(time_path=""))
        text = dict.fromkeys((*filter(None, self._names.values()),), "text")
        if "%" in mapping.time_format:
            text[mapping.time_column] = "text"
        spec = CodecSpec(
            "csv",
            time_path="",
            columns=tuple(name or NOT_KEPT for name in columns),
            types={**mapping.types, **text},
            delimiter=mapping.delimiter,
            decimal=mapping.decimal,
        )
        try:
            return csv_decoder(spec)
        except SpecError as error:
            raise MappingError(error.field, error.detail) from None

    def _line(self, values: dict[str, Any], now_ms: int) -> Line:
        mapping = self._mapping
        name = {field: self._named(values, field, column) for field, column in self._names.items()}
        origin = Origin(name["network_id"], name["alias_key"], name["alias"], "", "", "")
        try:
            check_origin(origin)
        except LimitError as error:
            raise DecodeError(error.detail) from None
        if mapping.time_column not in values:
            raise DecodeError(f"there is no {mapping.time_column!r}")
        at_ms = self._time_ms(values[mapping.time_column])
        if not DEVICE_TIME_MIN_MS <= at_ms <= now_ms + DEVICE_TIME_AHEAD_MAX_MS:
            raise DecodeError(f"{mapping.time_column!r} lies before the year 2000, or in the future")
        if mapping.attributes:
            data = {attribute: values[column] for attribute, column in mapping.attributes.items() if column in values}
        else:
            data = {column: value for column, value in values.items() if column not in self._apart}
        return Line(origin.network_id, origin.alias_key, origin.alias, at_ms, msgspec.json.encode(data))

    def _named(self, values: dict[str, Any], field: str, column: str) -> str:
        if not column:
            return str(getattr(self._mapping, field))
        value = values.get(column)
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise DecodeError(f"{column!r} names no {field}")
        if "\0" in str(value):
            raise DecodeError(f"{column!r} holds the character U+0000")
        return str(value)

    def _time_ms(self, value: Any) -> int:
        column, written = self._mapping.time_column, self._mapping.time_format
        if "%" in written:
            try:
                moment = datetime.datetime.strptime(str(value), written)
            except ValueError as error:
                raise DecodeError(f"{column!r}: {error}") from None
            moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=self._zone)
            return round(moment.timestamp() * 1000)
        if written:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise DecodeError(f"{column!r} is no number of {written}: {str(value)[:60]!r}")
            return round(value * MS_PER_UNIT[written])
        return time_ms(value, column, self._zone)


def columns_of(head: bytes, delimiter: str) -> list[str]:
    """The columns that a CSV file's first line names. Raises MappingError."""
    try:
        (row,) = csv.reader([head.decode("utf-8-sig").rstrip("\r\n")], delimiter=delimiter, strict=True)
    except (UnicodeDecodeError, csv.Error, ValueError, TypeError) as error:
        raise MappingError("delimiter", f"the first line cannot be read: {error}") from None
    return [name.strip() for name in row]


def guessed(head: bytes) -> tuple[str, str, list[str]]:
    """(format, delimiter, columns) as the first line looks."""
    try:
        return "ndjson", ",", list(_PARSED(head))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass
    delimiter = max(DELIMITERS, key=lambda mark: head.count(mark.encode()))
    try:
        return "csv", delimiter, columns_of(head, delimiter)
    except MappingError:
        return "csv", delimiter, []


def lines_of(data: bytes, first_line: int, *, has_header: bool) -> Iterator[tuple[int, bytes]]:
    """(number, line) of a chunk; without blank ones, and the header."""
    for number, line in enumerate(data.split(b"\n"), first_line):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
            if has_header:
                continue
        if line.strip():
            yield number, line.rstrip(b"\r")


def _zone(name: str) -> datetime.tzinfo:
    try:
        return parse_zone(name)
    except AskedError as error:
        raise MappingError("time_zone", error.detail) from None
