"""What a device is answered. An error says what is wrong and what there is instead, as a diagnostic payload (RFC 7252,
section 5.5.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from edge.credentials import GUESS_WINDOW_S, RefusalCode
from edge.listeners.coap.limits import DATAGRAM_BYTES_MAX, RETRY_S
from protocols.coap.message import Block, uint
from protocols.coap.numbers import Code, Option, code_text
from protocols.limits import PAYLOAD_BYTES_MAX

DIAGNOSTIC_BYTES_MAX: Final = 512
"""Of a diagnostic payload, so that an answer is not much longer than what it answers."""


class Answer(msgspec.Struct, frozen=True):
    code: int
    payload: bytes = b""
    options: tuple[tuple[int, bytes], ...] = ()
    """In order."""
    refusal: str = ""
    """As what it is counted and shown; empty: nothing was turned away."""
    detail: str = ""


CHANGED: Final = Answer(Code.CHANGED)


def refused(code: Code, refusal: str, detail: str, options: Sequence[tuple[int, bytes]] = ()) -> Answer:
    payload = detail.encode()[:DIAGNOSTIC_BYTES_MAX].decode(errors="ignore").encode()
    return Answer(code, payload, tuple(sorted(options)), refusal, detail)


def continued(block: Block) -> Answer:
    return Answer(Code.CONTINUE, options=((Option.BLOCK1, block.encode()),))


def with_block(answer: Answer, block: Block | None) -> Answer:
    """An answer to the last block of a body says which it is (RFC 7959, section 2.3)."""
    if block is None:
        return answer
    options = tuple(sorted((*answer.options, (int(Option.BLOCK1), block.encode()))))
    return msgspec.structs.replace(answer, options=options)


def malformed(detail: str) -> Answer:
    return refused(Code.BAD_REQUEST, "malformed", detail)


def bad_option(detail: str) -> Answer:
    return refused(Code.BAD_OPTION, "bad_option", detail)


def unavailable(refusal: str, detail: str, retry_s: int = RETRY_S) -> Answer:
    return refused(Code.UNAVAILABLE, refusal, f"{detail}; send it again", ((Option.MAX_AGE, uint(retry_s)),))


def not_recorded(refusal: str) -> Answer:
    return unavailable(refusal, f"the gateway does not have it, as it could not write it to its disk ({refusal})")


def not_allowed(code: RefusalCode, detail: str) -> Answer:
    """Of a refused credential."""
    if code is RefusalCode.TOO_MANY_GUESSES:
        wait = ((Option.MAX_AGE, uint(int(GUESS_WINDOW_S))),)
        return refused(Code.TOO_MANY_REQUESTS, code, detail, wait)
    if code is RefusalCode.NO_REGISTRY:
        return unavailable(code, detail)
    if code is RefusalCode.NO_CREDENTIALS:
        detail = "no credentials: add ?key=PASSWORD, or, where the path names no device, ?key=ALIAS:PASSWORD"
    return refused(Code.UNAUTHORIZED, code, detail)


def no_path(path: str, templates: Sequence[str]) -> Answer:
    known = ", ".join("/" + template for template in templates)
    return refused(Code.NOT_FOUND, "no_path", f"/{path[:100]} fits none of {known}")


def wrong_method(code: int, allowed: Sequence[Code]) -> Answer:
    names = " or ".join(method.name for method in allowed)
    return refused(Code.METHOD_NOT_ALLOWED, "method", f"method {code_text(code)} is not for this path; use {names}")


def unsupported_format(number: int, known: Sequence[int]) -> Answer:
    detail = f"content format {number} has no codec here; there are {', '.join(map(str, known))}"
    return refused(Code.UNSUPPORTED_FORMAT, "content_format", detail)


def too_large(detail: str = f"a body has up to {PAYLOAD_BYTES_MAX:,} bytes") -> Answer:
    options = ((Option.SIZE1, uint(PAYLOAD_BYTES_MAX)),)
    return refused(Code.TOO_LARGE, "payload_too_large", detail, options)


OSCORE_REFUSALS: Final = ("oscore", "oscore_replay")

DATAGRAM_TOO_LARGE: Final = too_large(
    f"a message has up to {DATAGRAM_BYTES_MAX:,} bytes; send a larger body in blocks (RFC 7959)"
)
TOO_FREQUENT: Final = refused(
    Code.TOO_MANY_REQUESTS,
    "too_frequent",
    "more messages a second than an address may send",
    ((Option.MAX_AGE, uint(1)),),
)
EMPTY: Final = refused(Code.BAD_REQUEST, "empty", "a message without a payload says nothing")
INCOMPLETE: Final = refused(
    Code.INCOMPLETE, "incomplete", "blocks before this one are not here (any more); begin with the first"
)
OTHER_DEVICE: Final = refused(
    Code.FORBIDDEN, "other_device", "the credentials are another device's than the path's; send to the device's own"
)
NO_DEVICE: Final = refused(
    Code.NOT_FOUND, "no_device", "nothing says which device this is: name it in the path, or by ?key=ALIAS:PASSWORD"
)
NO_PROXY: Final = refused(Code.NO_PROXY, "proxy", "this is no proxy")
NOT_ACCEPTABLE: Final = refused(Code.NOT_ACCEPTABLE, "accept", "there is no other form of this")
