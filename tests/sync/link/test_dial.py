from __future__ import annotations

import asyncio
import socket
import ssl

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import InvalidMessage, InvalidStatus
from websockets.http11 import Response

from protocols.times import CLOCK_UNSET_BEFORE_MS
from sync.link.dial import NO_CHECK_TIME, WebSocketDial, is_loopback, refusal, set_date_checks, tls_context
from sync.link.errors import TransportClosedError
from sync.link.limits import RETRY_AFTER_S_MAX, Deadlines


def http(status: int, body: bytes = b"", **headers: str) -> InvalidStatus:
    fields = Headers({name.replace("_", "-"): value for name, value in headers.items()})
    return InvalidStatus(Response(status, "Reason", fields, body))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "cannot connect: Connection refused"),
        (socket.gaierror(-2, "Name or service not known"), "cannot connect: Name or service not known"),
        (TimeoutError(), "no answer: timed out while connecting"),
        (
            ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"),
            "TLS failed: [SSL: WRONG_VERSION_NUMBER]",
        ),
        (ConnectionResetError(104, "Connection reset by peer"), "the connection was closed before an answer came"),
        (EOFError("stream ended"), "the connection was closed before an answer came"),
        (InvalidMessage("not HTTP"), "the other end does not speak WebSocket: not HTTP"),
        (
            http(401, b'{"type":"urn:tidegate:problem:token-expired","detail":"expired"}'),
            "the cloud answered 401 token-expired: exp",
        ),
        (http(502, b"<html>bad gateway</html>"), "the cloud answered 502 Reason"),
        (http(500, b'{"detail":"\xff"}'), "the cloud answered 500 Reason"),
        (http(404, b'{"detail":"Not Found"}'), "the cloud answered 404 Not Found"),
    ],
)
def test_why_no_connection_came_about_is_said_in_words(error: Exception, reason: str) -> None:
    assert refusal(error).reason.startswith(reason)


def test_a_connection_that_ends_before_any_answer_is_not_called_another_protocol() -> None:
    error = InvalidMessage("did not receive a valid HTTP response")
    error.__cause__ = EOFError("connection closed while reading HTTP status line")
    assert refusal(error).reason == "the connection was closed before an answer came"


def test_a_page_of_a_proxy_does_not_fill_the_log() -> None:
    assert len(refusal(http(500, b'{"detail":"' + b"x" * 100_000 + b'"}')).reason) <= 400


@pytest.mark.parametrize(
    ("value", "least_s", "most_s"),
    [
        ("7", 7, 7),
        ("999999999", RETRY_AFTER_S_MAX, RETRY_AFTER_S_MAX),
        ("-5", 0, 0),
        ("soon", 0, 0),
        ("", 0, 0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0, 0),
        ("Fri, 31 Dec 2199 23:59:59 GMT", RETRY_AFTER_S_MAX, RETRY_AFTER_S_MAX),
    ],
)
def test_retry_after_is_seconds_or_a_date_within_reason(value: str, least_s: float, most_s: float) -> None:
    assert least_s <= refusal(http(503, Retry_After=value)).retry_after_s <= most_s


def test_a_date_to_retry_after_counts_from_the_answers_own() -> None:
    answer = http(503, Retry_After="Fri, 31 Dec 2199 23:59:59 GMT", Date="Fri, 31 Dec 2199 23:59:52 GMT")
    assert refusal(answer).retry_after_s == 7, "whatever this machine's clock says"
    answer = http(503, Retry_After="Thu, 01 Jan 1970 00:00:09 GMT", Date="Thu, 01 Jan 1970 00:00:00 GMT")
    assert refusal(answer).retry_after_s == 9
    answer.response.headers["Retry-After"] = "4"
    assert refusal(answer).retry_after_s == 9, "the first of two"


def test_the_clouds_time_is_taken_from_its_answer() -> None:
    assert refusal(http(401, b'{"server_time_ms":1700000000000}')).server_time_ms == 1_700_000_000_000
    assert refusal(http(401, b'{"server_time_ms":"x"}')).server_time_ms is None


def test_tls_verifies_names_and_certificates_and_dates_while_the_clock_is_set() -> None:
    assert tls_context("ws://cloud/link/v1", None) is None
    context = tls_context("wss://cloud/link/v1", None)
    assert context is not None
    for wall_ms, off_ms, checks_dates in (
        (0, 0, False),
        (CLOCK_UNSET_BEFORE_MS, 0, True),
        (CLOCK_UNSET_BEFORE_MS, 60_000, True),
        (CLOCK_UNSET_BEFORE_MS, 60_001, False),
        (2 * CLOCK_UNSET_BEFORE_MS, -60_001, False),
        (CLOCK_UNSET_BEFORE_MS - 1, 0, False),
    ):
        set_date_checks(context, wall_ms, wall_ms + off_ms)
        assert context.check_hostname
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert bool(context.verify_flags & NO_CHECK_TIME) is not checks_dates


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("ws://127.0.0.1:8080/link/v1", True),
        ("ws://[::1]:8080/link/v1", True),
        ("ws://localhost/link/v1", True),
        ("wss://cloud.example.com/link/v1", False),
        ("ws://10.0.0.1/", False),
    ],
)
def test_no_proxy_stands_between_us_and_ourselves(url: str, loopback: bool) -> None:
    assert is_loopback(url) is loopback


@pytest.mark.servers
async def test_a_message_that_was_cut_off_is_the_last_one() -> None:
    """The other end waits for the rest of it, and would take nothing else."""
    gone = asyncio.Event()

    async def read_nothing(websocket: ServerConnection) -> None:
        websocket.transport.pause_reading()
        await gone.wait()
        websocket.transport.abort()

    async with serve(read_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        deadlines = Deadlines(farewell_s=5)
        dial = WebSocketDial(f"ws://127.0.0.1:{port}/", wall_ms=lambda: 0, ca_file=None, deadlines=deadlines)
        transport = await dial("token", software="test")
        sending = asyncio.create_task(transport.send(bytes(64 << 20)))
        while transport.sent_bytes == 0:  # there is no event for it
            await asyncio.sleep(0.01)
        sending.cancel()
        await asyncio.wait((sending,))
        with pytest.raises(TransportClosedError, match="cut off"):
            await transport.send(b"goodbye")
        async with asyncio.timeout(2):  # less than it would wait for the other end
            await transport.close(1000, "")
        gone.set()
