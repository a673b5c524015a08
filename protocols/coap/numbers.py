"""Numbers of the protocol: codes, options, content formats (RFC 7252, section 12; RFC 7641, 7959, 7967, 8516, 8613)."""

from __future__ import annotations

import enum
from typing import Final


class Kind(enum.IntEnum):
    """Types of messages (section 4)."""

    CONFIRMABLE = 0
    NON_CONFIRMABLE = 1
    ACKNOWLEDGEMENT = 2
    RESET = 3


class Code(enum.IntEnum):
    """Class in the upper three bits, detail in the lower five: 4.04 is `4 << 5 | 4`."""

    EMPTY = 0
    GET = 1
    POST = 2
    PUT = 3
    FETCH = 5
    CHANGED = 2 << 5 | 4
    CONTENT = 2 << 5 | 5
    CONTINUE = 2 << 5 | 31
    BAD_REQUEST = 4 << 5
    UNAUTHORIZED = 4 << 5 | 1
    BAD_OPTION = 4 << 5 | 2
    FORBIDDEN = 4 << 5 | 3
    NOT_FOUND = 4 << 5 | 4
    METHOD_NOT_ALLOWED = 4 << 5 | 5
    NOT_ACCEPTABLE = 4 << 5 | 6
    INCOMPLETE = 4 << 5 | 8
    TOO_LARGE = 4 << 5 | 13
    UNSUPPORTED_FORMAT = 4 << 5 | 15
    TOO_MANY_REQUESTS = 4 << 5 | 29
    UNAVAILABLE = 5 << 5 | 3
    NO_PROXY = 5 << 5 | 5


class Option(enum.IntEnum):
    """Odd numbers are critical: who does not know one must not act on the message (section 5.4.1)."""

    URI_HOST = 3
    ETAG = 4
    OBSERVE = 6
    URI_PORT = 7
    OSCORE = 9
    URI_PATH = 11
    CONTENT_FORMAT = 12
    MAX_AGE = 14
    URI_QUERY = 15
    ACCEPT = 17
    BLOCK2 = 23
    BLOCK1 = 27
    SIZE2 = 28
    PROXY_URI = 35
    PROXY_SCHEME = 39
    SIZE1 = 60
    ECHO = 252
    NO_RESPONSE = 258
    REQUEST_TAG = 292


VALUE_BYTES: Final = {
    Option.URI_HOST: (1, 255),
    Option.ETAG: (1, 8),
    Option.OBSERVE: (0, 3),
    Option.URI_PORT: (0, 2),
    Option.OSCORE: (0, 255),
    Option.URI_PATH: (0, 255),
    Option.CONTENT_FORMAT: (0, 2),
    Option.MAX_AGE: (0, 4),
    Option.URI_QUERY: (0, 255),
    Option.ACCEPT: (0, 2),
    Option.BLOCK2: (0, 3),
    Option.BLOCK1: (0, 3),
    Option.SIZE2: (0, 4),
    Option.PROXY_URI: (1, 1034),
    Option.PROXY_SCHEME: (1, 255),
    Option.SIZE1: (0, 4),
    Option.ECHO: (1, 40),
    Option.NO_RESPONSE: (0, 1),
    Option.REQUEST_TAG: (0, 8),
}
"""Least and most bytes of an option's value; one of another length counts as one that is not known (section 5.4.3)."""

REPEATABLE: Final = frozenset((Option.ETAG, Option.URI_PATH, Option.URI_QUERY, Option.REQUEST_TAG))

LINK_FORMAT: Final = 40
JSON: Final = 50


def code_text(code: int) -> str:
    """As people write it: `4.04`."""
    return f"{code >> 5}.{code & 31:02}"
