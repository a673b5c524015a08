"""What a codec takes and gives."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

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


class Decoded(msgspec.Struct, frozen=True, gc=False):
    """One message of a record. `data`: a JSON object, encoded."""

    alias: str | None
    """None: the origin's."""
    key: tuple[KeyPart, ...] | None
    """None: the payload gave no complete message key."""
    time: int | None
    data: bytes


Decoder = Callable[[bytes], list[Decoded]]
"""Raises DecodeError, naming place and reason."""
