"""What devices and listeners say that is no measurement: answers to commands, and who comes and goes. Records like any
other, told apart by the codec that their origin names, so that they are as durable.

`response`: the payload as the device sent it. The command's id is the last level of the topic or path
(`up/response/<id>`), else `response` in the payload, a JSON object. The device did it, unless the payload is a JSON
object with `"ok": false`, or with an `error` that is neither null nor false.

`presence`: a JSON object, Presence, written by the gateway.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from protocols.codecs.base import Decoded, Decoder, nothing_decoded
from protocols.errors import UNREADABLE, DecodeError

RESPONSE: Final = "response"
PRESENCE: Final = "presence"
EVENT_CODECS: Final = frozenset({RESPONSE, PRESENCE})

COMMAND_ID_CHARACTERS_MAX: Final = 64
"""A UUID has 36."""
REASON_CHARACTERS_MAX: Final = 200


class Response(msgspec.Struct, frozen=True):
    """A device's answer to a command."""

    command_id: str
    refusal: str | None
    """Why it did not do what it was told; None: it did."""


class Presence(msgspec.Struct, frozen=True):
    """That a device came or went. Without an alias in the record's origin: the listener begins anew, and whoever was
    there is not until it comes again."""

    online: bool
    reason: str


def event_codec(topic: str) -> str:
    """The codec hint for a message on that topic or path: `response`, or none."""
    levels = topic.rsplit("/", 2)
    return RESPONSE if RESPONSE in levels[-2:] and levels[0] != topic else ""


def read_response(topic: str, payload: bytes) -> Response:
    """Raises DecodeError where nothing names a command."""
    above, _, last = topic.rpartition("/")
    try:
        body: Any = msgspec.json.decode(payload) if payload else None
    except UNREADABLE:
        body = None
    said: dict[str, Any] = body if isinstance(body, dict) else {}
    command_id = last if above.rpartition("/")[2] == RESPONSE else said.get(RESPONSE)
    if not isinstance(command_id, str) or not 0 < len(command_id) <= COMMAND_ID_CHARACTERS_MAX:
        raise DecodeError("an answer names its command: …/response/<id>, or as `response` in a JSON object")
    return Response(command_id, _refusal(said))


def _refusal(said: dict[str, Any]) -> str | None:
    error = said.get("error")
    if error is None or error is False:
        return None if said.get("ok", True) is not False else "the device says that it did not"
    text = error if isinstance(error, str) else msgspec.json.encode(error).decode()
    return text[:REASON_CHARACTERS_MAX] or "the device says that it did not"


def read_presence(payload: bytes) -> Presence:
    """Raises DecodeError."""
    try:
        found = msgspec.json.decode(payload, type=Presence)
    except UNREADABLE as error:
        raise DecodeError(f"no presence: {error}") from None
    return msgspec.structs.replace(found, reason=found.reason[:REASON_CHARACTERS_MAX])


def event_decoder(codec: str, topic: str) -> Decoder:
    """Events give no messages; what is none is rejected."""

    def decode(payloads: Sequence[bytes]) -> Decoded:
        out = nothing_decoded()
        for place, payload in enumerate(payloads):
            try:
                if codec == RESPONSE:
                    read_response(topic, payload)
                else:
                    read_presence(payload)
            except DecodeError as error:
                out.errors.append((place, error))
        return out

    return decode
