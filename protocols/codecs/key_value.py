"""key=value: each line is a message, `temp=21.5 state=on` or `T:21.5;H:40`. Values may stand in double quotes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from protocols.codecs.base import Decoded, Decoder, nothing_decoded
from protocols.codecs.reader import MessageReader
from protocols.codecs.spec import CodecSpec, SpecError
from protocols.codecs.text_values import NOTHING, text_of, value_reader
from protocols.errors import DecodeError
from protocols.limits import NAME_BYTES_MAX

PAIRS_MAX: Final = 1024
"""Of one message."""
_USUAL: Final = " \t,;&"


def key_value_decoder(spec: CodecSpec) -> Decoder:
    """Raises SpecError."""
    between = spec.delimiter or "".join(mark for mark in _USUAL if mark != spec.decimal)
    if len(spec.assign) != 1 or spec.assign in between or spec.assign in '"\r\n':
        raise SpecError(
            "assign", f"{spec.assign!r} cannot stand between name and value; one other character is expected"
        )
    if len(spec.delimiter) > 1 or spec.delimiter == '"' or spec.delimiter == spec.decimal:
        raise SpecError("delimiter", f"{spec.delimiter!r} cannot separate pairs; one character is expected")
    reader = MessageReader(spec)
    value_of = value_reader(spec.types, spec.decimal)
    one_message = spec.delimiter in ("\n", "\r")
    marks = re.escape(between + ("\r\n" if one_message else ""))
    pair = re.compile(
        rf'[{marks}]*([^{marks}"{re.escape(spec.assign)}]+){re.escape(spec.assign)}("[^"]*"|[^{marks}"]*)'
    )
    rest = re.compile(rf"[{marks}]*")

    def decode(payloads: Sequence[bytes]) -> Decoded:
        out = nothing_decoded()
        for place, payload in enumerate(payloads):
            try:
                text = text_of(payload)
                lines = [text] if one_message else text.splitlines()
                messages = [_message(line, at) for at, line in enumerate(lines, 1) if line.strip()]
                if not messages:
                    raise DecodeError("no name and value")
                reader.add_all(out, place, payload, messages)
            except DecodeError as error:
                out.errors.append((place, error))
        return out

    def _message(line: str, number: int) -> dict[str, Any]:
        message: dict[str, Any] = {}
        at = 0
        where = f"line {number}"
        while at < len(line):
            found = pair.match(line, at)
            if found is None:
                end = rest.match(line, at)
                if end is not None and end.end() == len(line):
                    break
                raise DecodeError(f"{where}, character {at}: name{spec.assign}value is expected", path=where)
            name, text = found[1].strip(), found[2]
            if not name or len(name.encode()) > NAME_BYTES_MAX:
                raise DecodeError(f"{where}: {name[:40]!r} is no name of 1 to {NAME_BYTES_MAX} bytes", path=where)
            if name in message:
                raise DecodeError(f"{where}: {name} is there twice", path=where)
            if len(message) == PAIRS_MAX:
                raise DecodeError(f"{where}: more than {PAIRS_MAX} names", path=where)
            value = text[1:-1] if text[:1] == '"' else value_of(name, text)
            if value is not NOTHING:
                message[name] = value
            at = found.end()
        return message

    return decode
