"""Message ids: 128 bits, written as a UUID. Nothing downstream of this makes a new one.

From the record (no message key in the payload):

    0 | epoch 63 bits                        | seq 40 bits           | index 24 bits

From a message key of two small whole numbers (boot, sequence): sorts by them, so that a device's keys lie together in
the database's index:

    1 0 | BLAKE2b-70 of project, network, alias key, alias | boot 24 bits | sequence 32 bits

From any other message key, or an id sent by an HTTP client:

    1 1 | BLAKE2b-30 of project, network, alias key, alias | BLAKE2b-96 of the same and the key

From another message, by a relationship of its device:

    1 1 | BLAKE2b-126 of that message's id, the other device, the relationship's key
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

INDEX_BITS: Final = 24
SEQ_BITS: Final = 40
SEQ_END: Final = 2**SEQ_BITS
EPOCH_END: Final = 2**63
"""Numbers and epochs are below these."""
_BOOT_MAX: Final = 2**24 - 1
_SEQUENCE_MAX: Final = 2**32 - 1
_KEYED: Final = 1 << 127
_HASHED: Final = 3 << 126

KeyPart = int | str | float | bool


def record_message_id(epoch: int, seq: int, index: int = 0) -> bytes:
    """16 bytes, for message `index` of record (epoch, seq)."""
    return ((epoch << SEQ_BITS | seq) << INDEX_BITS | index).to_bytes(16, "big")


def derived_message_id(message_id: bytes, device_id: int, key: str) -> bytes:
    """16 bytes, for what a message becomes at another device, by the relationship `key`."""
    body = message_id + device_id.to_bytes(8, "big") + key.encode()
    digest = int.from_bytes(hashlib.blake2b(body, digest_size=16).digest(), "big")
    return (_HASHED | digest >> 2).to_bytes(16, "big")


class RecordName(msgspec.Struct, frozen=True):
    """What the id of a message without a message key says."""

    epoch: int
    seq: int
    index: int


def record_of(message_id: bytes) -> RecordName | None:
    """None: the id derives from a message key."""
    number = int.from_bytes(message_id, "big")
    if number & _KEYED:
        return None
    index = number & (1 << INDEX_BITS) - 1
    seq = number >> INDEX_BITS & (1 << SEQ_BITS) - 1
    return RecordName(number >> INDEX_BITS + SEQ_BITS, seq, index)


class KeySpace:
    """Ids of one device name's keyed messages; made once for a name, then cheap for each message."""

    __slots__ = ("_hashed", "_packed", "_scope")

    def __init__(self, project_id: str, network_id: str, alias_key: str, alias: str) -> None:
        self._scope = "\0".join((project_id, network_id, alias_key, alias)).encode()
        digest = int.from_bytes(hashlib.blake2b(self._scope, digest_size=16).digest(), "big")
        self._packed = _KEYED | (digest >> 58) << 56
        self._hashed = _HASHED | (digest >> 98) << 96

    def message_id(self, key: Sequence[KeyPart], index: int = 0) -> bytes:
        """16 bytes, the same for the same key whatever record carried it."""
        if index == 0 and len(key) == 2:
            boot, sequence = key
            if (
                type(boot) is int
                and type(sequence) is int
                and 0 <= boot <= _BOOT_MAX
                and 0 <= sequence <= _SEQUENCE_MAX
            ):
                return (self._packed | boot << 32 | sequence).to_bytes(16, "big")
        body = self._scope + b"\0" + msgspec.json.encode((*key, index))
        digest = int.from_bytes(hashlib.blake2b(body, digest_size=12).digest(), "big")
        return (self._hashed | digest).to_bytes(16, "big")
