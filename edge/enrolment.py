"""Makes a gateway known to the cloud: a token that a person got there buys a place for this machine's public key."""

from __future__ import annotations

import base64
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from edge.identity import Enrolment, load_enrolment, make_key, save_enrolment
from protocols.errors import UNREADABLE
from sync.link.dial import is_loopback
from sync.link.tokens import public_bytes
from tidegate.console import UserError

if TYPE_CHECKING:
    import httpx

PATH: Final = "/api/v1/enrolments"
TIMEOUT_S: Final = 15.0
"""One attempt, from the name's resolution to the answer."""
ATTEMPTS_MAX: Final = 4
"""A cloud that is being restarted is back by then; somebody sits in front of this and waits."""
WAIT_S_MAX: Final = 5.0


class _Answer(msgspec.Struct):
    gateway_id: str
    project_id: str
    link_url: str


class _Problem(msgspec.Struct):
    """RFC 9457."""

    title: str = ""
    detail: str = ""


def enrol(
    url: str,
    token: str,
    data_dir: Path,
    *,
    ca_file: Path | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Enrolment:
    """Enrols the gateway of `data_dir` at the cloud's `url` and keeps what it answers.

    The key pair is made first and kept, so that a repetition after a lost answer is the same request, and the cloud
    gives the same answer. Raises UserError with what to do.
    """
    url = url.rstrip("/")
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise UserError(f"{url!r} is not the address of a cloud", "give one like https://cloud.example.com")
    known = load_enrolment(data_dir)
    if known is not None:
        raise UserError(
            f"already enrolled as {known.gateway_id} of project {known.project_id} at {known.cloud_url}",
            f"start it with `tidegate-edge run`; to enrol it elsewhere, take another data folder than {data_dir}",
        )
    key = make_key(data_dir)
    body = {"token": token, "public_key": base64.b64encode(public_bytes(key)).decode()}
    answer = _read(url, _post(url, body, ca_file, sleep))
    enrolment = Enrolment(answer.project_id, answer.gateway_id, url, answer.link_url)
    save_enrolment(data_dir, enrolment)
    return enrolment


def _post(url: str, body: dict[str, str], ca_file: Path | None, sleep: Callable[[float], None]) -> httpx.Response:
    """Tries again where that can help: nobody answered, or a server that is only just starting did."""
    import httpx  # a gateway that runs needs neither of the two
    import tenacity

    def passing(response: httpx.Response) -> bool:
        return response.status_code in (429, 502, 503, 504)

    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_may_pass) | tenacity.retry_if_result(passing),
        wait=tenacity.wait_random_exponential(multiplier=0.5, max=WAIT_S_MAX),
        sleep=sleep,
        stop=tenacity.stop_after_attempt(ATTEMPTS_MAX),
        retry_error_callback=lambda state: state.outcome and state.outcome.result(),
    )
    try:
        verify: ssl.SSLContext | bool = True
        if ca_file is not None:
            verify = ssl.create_default_context()
            verify.load_verify_locations(ca_file)
        with httpx.Client(timeout=TIMEOUT_S, verify=verify, trust_env=not is_loopback(url)) as client:
            response: httpx.Response = attempts(client.post, url + PATH, json=body)
            return response
    except httpx.TransportError as error:
        raise _unreachable(url, error) from None
    except OSError as error:
        raise UserError(
            f"cannot read {ca_file}: {error.strerror or error}", "give a PEM file of certificates"
        ) from None


def _may_pass(error: BaseException) -> bool:
    import httpx

    return isinstance(error, httpx.TransportError) and _tls_error(error) is None


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error


def _unreachable(url: str, error: httpx.TransportError) -> UserError:
    tls = _tls_error(error)
    if isinstance(tls, ssl.SSLCertVerificationError):
        return UserError(
            f"the certificate of {url} does not hold: {tls.verify_message}",
            "check this machine's clock; for a certificate of your own, give its authority with --ca-file",
        )
    if tls is not None:
        return UserError(f"TLS with {url} failed: {tls}", "check whether the address is http:// instead")
    return UserError(
        f"no answer from {url}: {error or type(error).__name__}", "check the address, the port and the firewall"
    )


def _read(url: str, response: httpx.Response) -> _Answer:
    if response.is_success:
        try:
            return msgspec.json.decode(response.content, type=_Answer)
        except UNREADABLE as error:
            raise UserError(f"{url} gave an answer that is not an enrolment: {error}", _WRONG_URL) from None
    try:
        problem = msgspec.json.decode(response.content, type=_Problem)
    except UNREADABLE:
        problem = _Problem()
    why = problem.detail or problem.title or response.reason_phrase
    remedy = _REMEDIES.get(response.status_code, "look into the cloud's log, and try again later")
    raise UserError(f"the cloud at {url} answered {response.status_code}: {why}", remedy)


_NEW_TOKEN: Final = "make a new enrolment token: POST /api/v1/gateways/ID/enrolment-tokens"
_WRONG_URL: Final = "check the address: it is that of the cloud's API, up to its port and without a path"
_REMEDIES: Final = {
    401: _NEW_TOKEN,
    403: _NEW_TOKEN,
    404: _WRONG_URL,
    405: _WRONG_URL,
    409: _NEW_TOKEN,
    410: _NEW_TOKEN,
    422: "copy the token once more, whole",
}
