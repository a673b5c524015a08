"""What can be wrong with bytes from outside. The type tells the caller what to do."""

from __future__ import annotations

import re
from typing import Final

import msgspec

_AT_BYTE: Final = re.compile(r"\(byte (\d+)\)$")


class WireError(Exception):
    """Bytes that are not what they claim to be.

    `code` is stable and machine-readable (it is counted, and shown in lists of rejections); `detail` is for people and
    names the field and the limit.
    """

    code = "malformed"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class MalformedError(WireError):
    """Reject: the bytes do not parse. Sending them again cannot help."""


class ChecksumError(WireError):
    """Reject, and ask for a resend: the bytes were damaged on the way or on disk."""

    code = "checksum"


class VersionError(WireError):
    """Reject: written by a newer version; update this side first."""

    code = "version"


class LimitError(WireError):
    """Reject: larger or more than a named limit (see limits.py)."""

    code = "limit"


class DecodeError(WireError):
    """Reject the record, keep its bytes: a codec cannot give them meaning; a mended codec may."""

    code = "undecodable"

    def __init__(self, detail: str, *, offset: int | None = None, path: str = "") -> None:
        """`offset`: the byte of the payload that it is about, which the detail then says; `path`: the place in what the
        payload holds, which the detail names in its sentence."""
        super().__init__(detail if offset is None else f"{detail} (byte {offset})")
        self.offset = offset
        self.path = path


def found_at(text: str) -> int | None:
    """The byte that msgspec says at the end of an error; None: it says none."""
    found = _AT_BYTE.search(text)
    return None if found is None else int(found[1])


UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises on bytes from outside: text that is not UTF-8, and what is nested too deeply, also in fields that
it passes over, come through as they are."""
