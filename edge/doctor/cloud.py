"""The way to the cloud, step by step: name, port, TLS, HTTP, credential, and how far the clocks are apart. The first
step that fails is the last that is tried."""

from __future__ import annotations

import asyncio
import email.utils
import importlib.metadata
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from edge.doctor.finding import Finding, Site, State, failed, ok, warning
from edge.identity import Identity, load_identity
from edge.listeners.sockets import address
from sync.link.dial import WebSocketDial, is_loopback, refusal, tls_context
from sync.link.errors import DialError
from sync.link.limits import Deadlines
from tidegate.console import DISTRIBUTION, UserError

STEP_S: Final = 10.0
SKEW_MAX_S: Final = 60.0
"""Tokens are let in with a minute's difference; beyond it the first attempt of each boot fails, until the cloud has
told its time."""
EXPIRES_SOON_D: Final = 7
"""The cloud's certificate is renewed by somebody else, at least a week before it ends."""

_ONLY_TIME: Final = "see to the clock of this machine; the cloud's answers keep the link going meanwhile"


def check(site: Site) -> Iterator[Finding]:
    try:
        identity = load_identity(site.data_dir)
    except UserError as error:
        yield failed("enrolment", error.message, error.remedy)
        return
    if identity is None:
        yield warning("enrolment", f"the gateway of {site.data_dir} is not enrolled", site.enroll_command)
    else:
        enrolment = identity.enrolment
        yield ok("enrolment", f"gateway {enrolment.gateway_id} of project {enrolment.project_id}")
    url = site.config.link.url or ("" if identity is None else identity.enrolment.link_url)
    if url:
        yield from _steps(site, url, identity)


def _steps(site: Site, url: str, identity: Identity | None) -> Iterator[Finding]:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "wss" else 80)
    places = _resolved(host, port)
    if isinstance(places, Finding):
        yield places
        return
    yield ok("cloud name", f"{host} is {', '.join(places)}")
    ca_file = Path(site.config.link.ca_file) if site.config.link.ca_file else None
    steps: tuple[Callable[[], Finding | None], ...] = (
        partial(port_of, host, port),
        partial(tls_of, url, host, port, ca_file),
    )
    for step in steps:
        finding = step()
        if finding is not None:
            yield finding
            if finding.state is State.FAILED:
                return
    yield from _http(url, ca_file)
    if site.accounting is not None and site.accounting.link.state == "up":
        yield ok("cloud credential", "accepted: the running gateway's link is up")
    elif identity is not None:
        yield asyncio.run(credential(url, identity, ca_file))


def _resolved(host: str, port: int) -> list[str] | Finding:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        remedy = "see to the name server (resolvectl status, /etc/resolv.conf), or give link.url another name"
        return failed("cloud name", f"{host}: {error.strerror}", remedy)
    return sorted({str(place[0]) for *_, place in found})


def port_of(host: str, port: int) -> Finding:
    shown = f"tcp {address(host, port)}"
    began_s = time.perf_counter()
    try:
        with socket.create_connection((host, port), STEP_S):
            return ok("cloud port", f"{shown}: open, {1000 * (time.perf_counter() - began_s):.0f} ms")
    except OSError as error:
        reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        remedy = "let this machine out to that port in the firewall; is the cloud running?"
        return failed("cloud port", f"{shown}: {reason}", remedy)


def tls_of(url: str, host: str, port: int, ca_file: Path | None) -> Finding | None:
    """None: the address has none."""
    try:
        context = tls_context(url, ca_file)
        if context is None:
            if is_loopback(url):
                return None
            return warning(
                "cloud TLS", f"{url}: not encrypted, and not on this machine", "give the cloud a certificate"
            )
        with (
            socket.create_connection((host, port), STEP_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            certificate = secure.getpeercert() or {}
            version = secure.version()
    except OSError as error:  # ssl.SSLError is one
        reason = str(refusal(error)) if isinstance(error, ssl.SSLError) else f"{ca_file or host}: {error}"
        remedy = "see to this machine's clock; for a certificate of your own, give its authority as link.ca_file"
        return failed("cloud TLS", reason, remedy)
    ends_s = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    days = (ends_s - time.time()) / 86_400
    seen = f"{version}; the cloud's certificate is valid for {days:.0f} days"
    if days < EXPIRES_SOON_D:
        return warning("cloud TLS", seen, "tell whoever keeps the cloud: it should have been renewed by now")
    return ok("cloud TLS", seen)


def _http(url: str, ca_file: Path | None) -> Iterator[Finding]:
    parts = urlsplit(url)
    base = parts._replace(scheme="https" if parts.scheme == "wss" else "http", path="/healthz", query="").geturl()
    verify = tls_context(url, ca_file) or True
    try:
        with httpx.Client(timeout=STEP_S, verify=verify, trust_env=not is_loopback(url)) as client:
            answer = client.get(base)
    except httpx.HTTPError as error:
        remedy = "is that the cloud's address? a proxy on the way must let WebSockets through"
        yield failed("cloud HTTP", f"{base}: {error or type(error).__name__}", remedy)
        return
    if answer.is_success:
        yield ok("cloud HTTP", f"{base}: {answer.status_code}")
    else:
        remedy = "is that the cloud's address, and is the cloud well? its /readyz says what it lacks"
        yield warning("cloud HTTP", f"{base}: {answer.status_code} {answer.reason_phrase}", remedy)
    if skew := skew_of(answer.headers.get("Date", ""), time.time()):
        yield skew


def skew_of(date: str, now_s: float) -> Finding | None:
    """`date`: of an HTTP answer, which has whole seconds; None where there is none."""
    try:
        ahead_s = now_s - email.utils.parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None
    if abs(ahead_s) <= 2:
        return ok("time skew", "this machine and the cloud agree within 2 s")
    seen = f"this machine is {abs(ahead_s):,.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the cloud"
    if abs(ahead_s) > SKEW_MAX_S:
        return warning("time skew", seen, _ONLY_TIME)
    return ok("time skew", seen)


async def credential(url: str, identity: Identity, ca_file: Path | None) -> Finding:
    """Opens the link as the gateway does, and closes it before a word is said."""
    what = "cloud credential"
    software = f"tidegate-edge {importlib.metadata.version(DISTRIBUTION)} doctor"
    now_ms = int(time.time() * 1000)
    try:
        dial = WebSocketDial(url, wall_ms=lambda: now_ms, ca_file=ca_file, deadlines=Deadlines(open_s=STEP_S))
        transport = await dial(identity.token(now_ms // 1000), software=software)
    except DialError as error:
        if error.server_time_ms is not None and "token-expired" in error.reason:
            seen = f"{error.reason}; the gateway goes by the cloud's time, {error.server_time_ms - now_ms:+,} ms"
            return warning(what, seen, _ONLY_TIME)
        remedy = "enrol it anew, in a data folder of its own: the cloud does not know this key"
        if "token-" not in error.reason:
            remedy = "look into the cloud's log; a proxy on the way must let WebSockets through"
        return failed(what, error.reason, remedy)
    except OSError as error:
        return failed(what, f"{ca_file}: {error.strerror or error}", "give link.ca_file a PEM file of certificates")
    await transport.close(1000, "doctor")
    return ok(what, f"accepted by {urlsplit(url).hostname}")
