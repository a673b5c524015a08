"""CSV (RFC 4180): each row is a message. Names of columns come from the network's codec, or from the first row."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from typing import Any, Final

from protocols.codecs.base import Decoded, Decoder, nothing_decoded
from protocols.codecs.reader import MessageReader
from protocols.codecs.spec import CodecSpec, SpecError
from protocols.codecs.text_values import NOTHING, text_of, value_reader
from protocols.errors import DecodeError
from protocols.limits import MESSAGES_PER_RECORD_MAX, NAME_BYTES_MAX

COLUMNS_MAX: Final = 512
"""Of one row: more than any logger has channels."""
NOT_KEPT: Final = "-"


def csv_decoder(spec: CodecSpec) -> Decoder:
    """Raises SpecError."""
    delimiter = spec.delimiter or ","
    if len(delimiter) != 1 or delimiter in '"\r\n' or delimiter == spec.decimal:
        raise SpecError("delimiter", f"{delimiter!r} cannot separate values; one character is expected")
    if spec.columns:
        _check_columns(spec.columns)
    reader = MessageReader(spec)
    value_of = value_reader(spec.types, spec.decimal)

    def decode(payloads: Sequence[bytes]) -> Decoded:
        out = nothing_decoded()
        for place, payload in enumerate(payloads):
            try:
                reader.add_all(out, place, payload, _messages(payload))
            except DecodeError as error:
                out.errors.append((place, error))
        return out

    def _messages(payload: bytes) -> list[dict[str, Any]]:
        names = spec.columns
        messages: list[dict[str, Any]] = []
        rows = csv.reader(text_of(payload).splitlines(keepends=True), delimiter=delimiter, strict=True)
        try:
            for row in rows:
                if not row or row == [""]:
                    continue
                if not names:
                    names = _header(row)
                    continue
                if len(row) != len(names):
                    what = f"{len(row)} values for {len(names)} columns"
                    raise DecodeError(f"line {rows.line_num}: {what}", path=f"line {rows.line_num}")
                if len(messages) == MESSAGES_PER_RECORD_MAX:
                    raise DecodeError(f"more than {MESSAGES_PER_RECORD_MAX} rows in one payload")
                messages.append(_message(names, row))
        except csv.Error as error:
            raise DecodeError(f"line {rows.line_num}: {error}", path=f"line {rows.line_num}") from None
        except DecodeError as error:
            if error.path.startswith("line"):
                raise
            raise DecodeError(f"line {rows.line_num}: {error.detail}", path=f"line {rows.line_num}") from None
        if not messages:
            raise DecodeError("no row of values")
        return messages

    def _message(names: Sequence[str], row: Sequence[str]) -> dict[str, Any]:
        values = {name: value_of(name, text) for name, text in zip(names, row, strict=True) if name != NOT_KEPT}
        return {name: value for name, value in values.items() if value is not NOTHING}

    return decode


def _header(row: Sequence[str]) -> tuple[str, ...]:
    names = tuple(name.strip() or NOT_KEPT for name in row)
    try:
        _check_columns(names)
    except SpecError as error:
        raise DecodeError(f"the header: {error.detail}") from None
    return names


def _check_columns(names: Sequence[str]) -> None:
    """Raises SpecError."""
    if len(names) > COLUMNS_MAX:
        raise SpecError("columns", f"{len(names)} columns; the limit is {COLUMNS_MAX}")
    kept = [name for name in names if name != NOT_KEPT]
    for name in kept:
        if not name or len(name.encode()) > NAME_BYTES_MAX:
            raise SpecError("columns", f"{name[:40]!r} is no name: 1 to {NAME_BYTES_MAX} bytes are expected")
    doubled = [name for name in kept if kept.count(name) > 1]
    if doubled:
        raise SpecError("columns", f"two columns are called {doubled[0]!r}")
