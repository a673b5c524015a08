"""What a codec takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from protocols.errors import DecodeError
from protocols.ids import KeyPart


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
    relative: list[int] = []
    """Rows whose time is milliseconds since the payload was received, negative before it; rising."""
    units: dict[str, str] = {}
    """Attribute to unit, where payloads name them; data holds plain values."""


Decoder = Callable[[Sequence[bytes]], Decoded]
"""Payloads to messages. Never raises: what is wrong with one payload is its own error."""


def nothing_decoded() -> Decoded:
    return Decoded([], [], [], [], [], [], [])


def all_rejected(error: DecodeError) -> Decoder:
    """The decoder where none can be made: each payload gets that error."""

    def decode(payloads: Sequence[bytes]) -> Decoded:
        out = nothing_decoded()
        out.errors.extend((place, error) for place in range(len(payloads)))
        return out

    return decode
