"""What HTTP clients send, checked, as rows of a batch."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final

import msgspec

from protocols.batch import check_origin
from protocols.codecs import CODECS
from protocols.codecs.envelope import ENVELOPE, Envelope
from protocols.errors import LimitError
from protocols.limits import BATCH_BYTES_MAX, BATCH_RECORDS_MAX, NAME_BYTES_MAX, PAYLOAD_BYTES_MAX
from protocols.messages import Origin
from sync.registry import Registry

MESSAGES_MAX: Final = BATCH_RECORDS_MAX
"""Messages in one request: they become part of one batch."""
BYTES_MAX: Final = BATCH_BYTES_MAX - 64 * 1024
"""Of their payloads together: a batch keeps room for names and columns beside them."""
LISTENER: Final = "rest"
"""What the origin of records calls HTTP ingest."""
KNOWN_CODECS: Final = frozenset(CODECS) - {ENVELOPE}

Row = tuple[Origin, bytes]
"""Of a batch: an origin and a payload."""


class IngestMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message as an HTTP client sends it: its `data`, or a payload of any codec."""

    network_id: str
    alias: str
    data: msgspec.Raw = msgspec.Raw()
    payload_base64: str | None = None
    payload_text: str | None = None
    codec: str = ""
    """The payload's; empty: the network's."""
    alias_key: str | None = None
    """None: the network's."""
    id: str | None = None
    """The client's own, for sending again safely: unique for this device name."""
    time: int | float | str | None = None
    """Unix milliseconds, Unix seconds or RFC 3339."""


class RefusedError(Exception):
    """Nothing of the request was recorded. `field`: where in the body it is wrong."""

    def __init__(self, field: str, detail: str, limit: int | None = None) -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.detail = detail
        self.limit = limit


def rows_of(registry: Registry, messages: Sequence[IngestMessage], *, many: bool = True) -> list[Row]:
    """`many`: they came as an array, so that errors name their place. Raises RefusedError."""
    if not 0 < len(messages) <= MESSAGES_MAX:
        raise RefusedError("body", f"{len(messages)} messages in one request; allowed are 1 to {MESSAGES_MAX}")
    rows = []
    size = 0
    seen: dict[tuple[str, str | None, str, str], Origin] = {}
    for place, message in enumerate(messages):
        at = f"messages[{place}]" if many else ""
        payload, codec = _payload(message, at)
        name = (message.network_id, message.alias_key, message.alias, codec)
        origin = seen.get(name)
        if origin is None:
            origin = seen[name] = _origin(registry, message.network_id, message.alias_key, message.alias, codec, at)
        _check_size(payload, at)
        size += len(payload)
        rows.append((origin, payload))
    if size > BYTES_MAX:
        raise RefusedError("body", f"{size:,} bytes in one request", BYTES_MAX)
    return rows


def payload_row(
    registry: Registry,
    network_id: str,
    alias_key: str,
    alias: str,
    payload: bytes,
    *,
    codec: str = "",
    id_: str | None = None,
    time: int | float | str | None = None,
) -> Row:
    """Of one payload as it came. Raises RefusedError."""
    _check_codec(codec, "")
    recorded, hint = _recorded(payload, codec, id_, time)
    _check_size(recorded, "")
    return _origin(registry, network_id, alias_key, alias, hint, ""), recorded


def _payload(message: IngestMessage, at: str) -> tuple[bytes, str]:
    """What is recorded, and the codec of that."""
    data = message.data
    raw: bytes
    if message.payload_base64 is None and message.payload_text is None:
        if not bytes(data):
            raise RefusedError(_within(at, "data"), "is missing: give data, payload_text or payload_base64")
        if message.codec:
            raise RefusedError(_within(at, "codec"), "goes with payload_text or payload_base64; data is JSON")
        return msgspec.json.encode(Envelope(data, message.id, message.time)), ENVELOPE
    if bytes(data) or (message.payload_base64 is not None and message.payload_text is not None):
        raise RefusedError(_within(at, "data"), "give one of data, payload_text and payload_base64")
    _check_codec(message.codec, at)
    if message.payload_text is not None:
        raw = message.payload_text.encode()
    else:
        try:
            raw = base64.b64decode(message.payload_base64 or "", validate=True)
        except (binascii.Error, ValueError) as error:
            raise RefusedError(_within(at, "payload_base64"), f"is not base64: {error}") from None
    return _recorded(raw, message.codec, message.id, message.time)


def _recorded(payload: bytes, codec: str, id_: str | None, time: int | float | str | None) -> tuple[bytes, str]:
    if id_ is None and time is None:
        return payload, codec
    return msgspec.json.encode(Envelope(id=id_, time=time, payload=payload, codec=codec)), ENVELOPE


def _check_codec(codec: str, at: str) -> None:
    if codec and codec not in KNOWN_CODECS:
        known = ", ".join(sorted(KNOWN_CODECS))
        raise RefusedError(_within(at, "codec"), f"no codec is called {codec!r}; known are: {known}")


def _check_size(payload: bytes, at: str) -> None:
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise RefusedError(
            at or "body",
            f"{len(payload):,} bytes in one message; the limit is {PAYLOAD_BYTES_MAX:,}",
            PAYLOAD_BYTES_MAX,
        )


def _origin(registry: Registry, network_id: str, alias_key: str | None, alias: str, codec: str, at: str) -> Origin:
    network = registry.networks.get(network_id)
    key = alias_key or (network.alias_key if network else "serial")
    origin = Origin(network_id, key, alias, "", codec, LISTENER)
    try:
        check_origin(origin)
    except LimitError as error:
        name, _, detail = error.detail.partition(" ")
        raise RefusedError(_within(at, name), detail, NAME_BYTES_MAX) from None
    for name in ("network_id", "alias_key", "alias"):
        if "\0" in getattr(origin, name):
            raise RefusedError(_within(at, name), "holds the character U+0000, which no database text can")
    return origin


def _within(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name
