"""Why a link ends. The type tells the caller what to do; `code` is stable and is counted, `text` is for people."""

from __future__ import annotations

CLOSE_NORMAL = 1000
CLOSE_VIOLATION = 1002
CLOSE_INTERNAL = 1011
CLOSE_TRY_LATER = 1013


class LinkError(Exception):
    """Close the connection with `close_code` (RFC 6455, 7.4) and connect again later."""

    close_code = CLOSE_VIOLATION

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class ViolationError(LinkError):
    """The other end broke the protocol: one of the two is faulty or much older."""


class LateError(LinkError):
    """The other end did not answer in time: it hangs, or the connection is half-open."""

    close_code = CLOSE_TRY_LATER


class FarewellError(LinkError):
    """The other end said goodbye."""

    close_code = CLOSE_NORMAL

    def __init__(self, code: str, text: str, retry_after_s: float = 0.0) -> None:
        super().__init__(code, text)
        self.retry_after_s = retry_after_s


class TransportClosedError(Exception):
    """The connection is gone; nothing can be sent on it any more."""


class DialError(Exception):
    """No connection came about; try again later."""

    def __init__(self, reason: str, retry_after_s: float = 0.0, server_time_ms: int | None = None) -> None:
        """`reason` is for people; `retry_after_s`, where the cloud asks for it; `server_time_ms` is its clock, where it
        told it: a token that was refused as expired may only need a better one."""
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.server_time_ms = server_time_ms
