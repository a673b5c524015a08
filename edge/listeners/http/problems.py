"""What a device is told when its request is not taken (RFC 9457), with what to do about it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import msgspec

from edge.credentials import GUESS_WINDOW_S, RefusalCode
from edge.http import Answer
from protocols.limits import PAYLOAD_BYTES_MAX

MEDIA_TYPE: Final = "application/problem+json"

RETRY_S: Final = 5
"""Where the disk, the log or the registry is in the way: a few of the collector's own attempts."""

CHALLENGE: Final = ("WWW-Authenticate", 'Basic realm="tidegate", charset="UTF-8", Bearer realm="tidegate"')

_REMEDIES: Final = {
    RefusalCode.NO_CREDENTIALS: "send the device's or the network's password: Basic (curl -u ALIAS:PASSWORD), or, "
    "where the path names the device, Bearer",
    RefusalCode.BAD_NAME: "the user name is the device's alias, or KEY:ALIAS",
    RefusalCode.WRONG_PASSWORD: "make the device a new credential in the cloud, or give it its network's",
    RefusalCode.TOO_MANY_GUESSES: "mend the password, and wait",
    RefusalCode.NO_REGISTRY: "send it again; see `tidegate-edge status` whether the link is up and the network exists",
}


class Problem(msgspec.Struct, frozen=True):
    status: int
    code: str
    """As refusals are counted by; with dashes, it ends the problem's `type`."""
    detail: str
    remedy: str
    retry_after_s: int = 0
    headers: tuple[tuple[str, str], ...] = ()

    def answer(self) -> Answer:
        body = {
            "type": f"urn:tidegate:problem:{self.code.replace('_', '-')}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "remedy": self.remedy,
        }
        headers = self.headers
        if self.retry_after_s:
            headers = (*headers, ("Retry-After", str(self.retry_after_s)))
        return Answer(msgspec.json.encode(body) + b"\n", MEDIA_TYPE, self.status, headers)


def malformed(status: int, detail: str) -> Problem:
    return Problem(status, "malformed", detail, "send a request as RFC 9112 has it")


def not_allowed(code: RefusalCode, detail: str) -> Problem:
    """Of a refused credential."""
    remedy = _REMEDIES[code]
    if code is RefusalCode.TOO_MANY_GUESSES:
        return Problem(429, code, detail, remedy, int(GUESS_WINDOW_S))
    if code is RefusalCode.NO_REGISTRY:
        return Problem(503, code, detail, remedy, RETRY_S)
    return Problem(401, code, detail, remedy, headers=(CHALLENGE,))


def not_recorded(code: str) -> Problem:
    detail = "the gateway could not write it to its disk, and does not have it"
    return Problem(503, code, detail, "send it again; `tidegate-edge status` says what is in the way", RETRY_S)


def no_path(path: str, templates: tuple[str, ...]) -> Problem:
    known = ", ".join("/" + template for template in templates)
    return Problem(404, "no_path", f"/{path[:200]} fits none of {known}", "send to a path of these")


def wrong_method(method: str, allowed: tuple[str, ...]) -> Problem:
    text = ", ".join(allowed)
    return Problem(405, "method", f"{method[:20]} is not for this path", f"use {text}", headers=(("Allow", text),))


TOO_LARGE: Final = Problem(
    413, "payload_too_large", f"a message has up to {PAYLOAD_BYTES_MAX:,} bytes", "send it in several requests"
)
EMPTY: Final = Problem(400, "empty", "the request has no body", "send the message as the request's body")
ENCODED: Final = Problem(415, "content_encoding", "compressed requests are not taken", "send the body as it is")
OTHER_DEVICE: Final = Problem(
    403, "other_device", "the credentials are another device's than the path's", "send to the device's own path"
)
NO_DEVICE: Final = Problem(
    404, "no_device", "nothing says which device this is for", "name it in the path, or by Basic credentials"
)
NO_COMMAND: Final = Problem(
    404,
    "no_command",
    "no command of this id waits to be confirmed: it was, or has expired, or the gateway started anew",
    "nothing; what the device may have missed is sent again under the same id",
)
TOO_FREQUENT: Final = Problem(
    429,
    "too_frequent",
    "more messages a second than a device may send (messages_per_s_max)",
    "send it again later; one request may hold many messages",
    1,
)
BAD_WAIT: Final = Problem(400, "wait", "wait is no number of seconds up to 300", "ask with ?wait=30")
TIMED_OUT: Final = Problem(408, "request_timeout", "the request did not come whole in time", "send it again, quicker")
TOO_MANY: Final = Problem(
    503, "connection_limit", "as many connections as this listener may have", "send it again later", RETRY_S
)
