"""What a codec takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from protocols.errors import DecodeError
from protocols.ids import KeyPart


class CodecSpec(msgspec.Struct, frozen=True):
    """How a network's payloads are read. Paths are dotted names: `meta.serial`. Part of a network in the registry."""

    codec: str = "json"
    alias_path: str = ""
    """Where a payload names its device; empty: the device is the one that connected, or the topic's."""
    key_paths: tuple[str, ...] = ()
    """Where a payload holds its message key, boot and sequence, say; empty: none."""
    time_path: str = "time"
    """Where a payload holds the device's time: Unix milliseconds, Unix seconds below 10^11, or RFC 3339."""


class Decoded(msgspec.Struct, frozen=True):
    """The messages of some payloads, as columns; a payload gives none, one or many, its messages in a row.

    A payload that cannot be given meaning gives an error instead, and no message.
    """

    place: list[int]
    """Which payload, from 0."""
    index: list[int]
    """Which message of its payload, from 0."""
    alias: list[str | None]
    """None: the origin's."""
    key: list[tuple[KeyPart, ...] | None]
    """None: the payload gave no complete message key."""
    time: list[int | None]
    """The device's, Unix milliseconds; None: it gave none."""
    data: list[bytes]
    """A JSON object, encoded."""
    errors: list[tuple[int, DecodeError]]
    """(place, what is wrong)."""


Decoder = Callable[[Sequence[bytes]], Decoded]
"""Payloads to messages. Never raises: what is wrong with one payload is its own error."""


def nothing_decoded() -> Decoded:
    return Decoded([], [], [], [], [], [], [])
