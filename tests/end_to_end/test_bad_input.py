"""Bad input, on a site of real processes: each kind gives a clear error or a counted, inspectable rejection, and a
neighbour that sends all the while loses neither its connection nor a message."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import socket
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from cloud.api.auth import make_token
from cloud.api.context import SESSION_SECRET
from cloud.db.secrets import server_secret
from edge.config import LOG_BYTES_MIN
from edge.data_folder import running
from protocols.batch import BatchKey, RecordBatch, encode_records
from protocols.block import HEAD_BYTES, encode_block
from protocols.limits import PAYLOAD_BYTES_MAX
from protocols.messages import Clock, ClockState, Lane, Origin, Priority
from sync.bus.contract import BusRefusedError
from sync.bus.zeromq import ZeroMqBus
from sync.link.frames import Accepted, Blocks, Frame, Hello, Refused, Welcome, decode_frame, encode_frame
from tests.contract.nats_server import free_port
from tests.edge.site import Site as GatewaySite
from tests.end_to_end.device import Device, Neighbour
from tests.end_to_end.watched_site import WatchedSite

pytestmark = pytest.mark.asyncio(loop_scope="module")

YEAR_2099_MS = 4_070_908_800_000
UNREACHABLE_S = 30.0
"""For a start that is to give up after one second: the embedded NATS beside it starts and stops, too."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WatchedSite]:
    site = WatchedSite(tmp_path_factory.mktemp("bad"))
    async with site:
        await site.set_up()
        yield site


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def neighbour(site: WatchedSite) -> AsyncIterator[Neighbour]:
    neighbour = Neighbour(await site.device("keyed", "neighbour"))
    await neighbour.start()
    yield neighbour
    await neighbour.close()


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def undisturbed(site: WatchedSite, neighbour: Neighbour) -> AsyncIterator[None]:
    """After each test: what the neighbour was promised is stored, and it goes on; the accounting closes."""
    yield
    await neighbour.still_sends()
    promised = neighbour.acknowledged[-1]

    async def stored() -> bool:
        return bool((await site.current("keyed:neighbour")).get("seq", 0) >= promised)

    await site.until(stored)
    assert (await site.gateway_status())["closed"]
    assert (await site.get("accounting"))["closed"]


def batch_of(alias: str, data: bytes) -> tuple[BatchKey, bytes]:
    """A batch with one record, as a process beside the gateway makes it."""
    now_ms = time.time_ns() // 1_000_000
    key = BatchKey(secrets.randbits(63), 1)
    clock = Clock(secrets.randbits(63), now_ms, ClockState.SYNCHRONIZED)
    origin = Origin("plain", "serial", alias, "up", "", "test")
    return key, encode_records(RecordBatch(key, clock, now_ms, [origin], [0], [0], [data]))


def flipped(data: bytes, at: int) -> bytes:
    """With one bit of one byte changed."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


# Packets and payloads


@pytest.mark.parametrize(
    ("packets", "code", "word"),
    [
        (b"\x10\xff\xff\xff\xff\x7f", "malformed", "remaining length is longer than 4 bytes"),
        (b"GET / HTTP/1.1\r\n\r\n", "protocol", "instead of CONNECT"),
        (b"\x10\x0d\x00\x04MQTX\x04\x02\x00\x3c\x00\x01a", "malformed", "protocol name"),
        (b"\x32\x07\x00\x02up\x00\x01x", "protocol", "instead of CONNECT"),
        (b"\x10\xff\xff\x03", "limit", "the limit is"),
    ],
    ids=["length", "http", "protocol-name", "publish-first", "huge-connect"],
)
async def test_malformed_packets_of_strangers(site: WatchedSite, packets: bytes, code: str, word: str) -> None:
    before = await site.turned_away(code)
    reader, writer = await asyncio.open_connection("127.0.0.1", site.mqtt_ports["keyed"])
    writer.write(packets)
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()
    assert await site.turned_away(code) == before + 1
    newest = await site.newest_refused("")
    assert newest["code"] == code
    assert word in newest["detail"]
    assert packets.startswith(bytes.fromhex(newest["payload"]["hex"])), "its bytes, as they came"


async def test_malformed_packets_of_a_device(site: WatchedSite) -> None:
    bad = await site.device("plain", "malformed")
    for packet, word in (
        (b"\x36\x05\x00\x02up\x00", "QoS"),
        (b"\x32\x06\x00\x02up\x00\x00", "packet identifier 0"),
        (b"\x32\x07\x00\x02u#\x00\x01x", "#"),
        (b"\x32\x07\x00\x02\xff\xfe\x00\x01x", "UTF-8"),
        (b"\x60\x02\x00\x01", "flags"),
    ):
        async with bad.connected():
            assert await bad.send(good=True)
            bad.write(packet)
            assert await bad.is_closed()
        newest = await site.newest_refused("malformed")
        assert word in newest["detail"]
        assert bytes.fromhex(newest["payload"]["hex"]) == packet


async def test_oversized_payloads(site: WatchedSite) -> None:
    big = await site.device("plain", "big")
    fits = json.dumps({"n": 1, "fill": "x" * (PAYLOAD_BYTES_MAX - 20)}).encode().ljust(PAYLOAD_BYTES_MAX)
    async with big.connected():
        assert await big.publish(fits), "the limit itself is allowed"
        assert not await big.publish(fits + b" ")
    newest = await site.newest_refused("big")
    assert newest["code"] == "limit"
    assert "262,145 bytes; the limit is 262,144" in newest["detail"]

    message = {"network_id": "plain", "alias": "big", "data": {"fill": "x" * PAYLOAD_BYTES_MAX}}
    answer = await site.client.post(f"{site.url}/api/v1/messages", json=[message])
    assert answer.status_code == 422
    assert "messages[0]" in answer.json()["detail"]
    assert "the limit is 262,144" in answer.json()["detail"]
    await site.until_current("plain:big", n=1)


async def test_wrong_passwords(site: WatchedSite) -> None:
    known = await site.device("keyed", "guessed")
    before = await site.turned_away("wrong_password")
    assert await Device(site.mqtt_ports["keyed"], "guessed", "not-it").connect() == 5
    assert await Device(site.mqtt_ports["keyed"], "nobody", "not-it").connect() == 5
    assert await site.turned_away("wrong_password") == before + 2
    newest = await site.newest_refused("guessed")
    assert newest["detail"] == "wrong password, or no device of this name"
    assert "not-it" not in json.dumps(await site.gateway_rejects())
    async with known.connected():
        assert await known.send(good=True)

    guess = {"user": "somebody", "password": "not-it"}
    answers = [await site.client.post(f"{site.url}/api/v1/session", json=guess) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429]
    assert answers[0].json()["detail"] == "wrong user or password"
    assert "tidegate-cloud user reset" in answers[0].json()["remedy"]
    assert 0 < int(answers[5].headers["Retry-After"]) <= 60
    assert (await site.get("session"))["user"] == "admin"


async def test_payloads_that_do_not_decode(site: WatchedSite) -> None:
    babbler = await site.device("plain", "babbler")
    payloads = [b"not json", b'{"temperature": 71.5', b"\xff\xfe\x00\x01", b"", b'"text"', b"[" * 100 + b"]" * 100]
    async with babbler.connected():
        for payload in payloads:
            assert await babbler.publish(payload), "recording comes before decoding"
        assert await babbler.send(good=True)

    async def rejects() -> list[dict[str, Any]]:
        page = await site.get("rejects?limit=100")
        return [one for one in page["items"] if one["alias"] == "babbler"]

    async def arrived() -> bool:
        return len(await rejects()) == len(payloads)

    await site.until(arrived)
    shown = await rejects()
    assert sorted(base64.b64decode(one["payload"]) for one in shown) == sorted(payloads)
    (first,) = [one for one in shown if one["payload_text"] == "not json"]
    assert (first["code"], first["network_id"], first["topic"]) == ("undecodable", "plain", "up")
    assert "not JSON" in first["detail"]

    async def rejects_at_the_gateway() -> list[dict[str, Any]]:
        return [one for one in (await site.gateway_rejects())["rejected"] if one["alias"] == "babbler"]

    async def resolved_at_the_gateway() -> bool:
        return len(await rejects_at_the_gateway()) == len(payloads)

    await site.until(resolved_at_the_gateway)  # its resolver follows the log at a pace of its own
    at_the_gateway = await rejects_at_the_gateway()
    assert sorted(bytes.fromhex(one["payload"]["hex"]) for one in at_the_gateway) == sorted(payloads)
    assert {one["detail"] for one in at_the_gateway} == {one["detail"] for one in shown}
    (group,) = [one for one in (await site.get("rejects/groups"))["items"] if one["alias"] == "babbler"]
    assert group["records"] == len(payloads)

    answer = await site.client.post(f"{site.url}/api/v1/messages", content=b'{"network_id": "plain",')
    assert answer.status_code == 422
    assert answer.json()["field"] == "body"


async def test_dates_of_1970_and_2099(site: WatchedSite) -> None:
    clockless = await site.device("plain", "clockless")
    now_ms = time.time_ns() // 1_000_000
    async with clockless.connected():
        assert await clockless.send(time=now_ms, temperature=20)
        assert await clockless.send(time="1970-01-02T00:00:00Z", temperature=1970)
        assert await clockless.send(time=YEAR_2099_MS, temperature=2099)
        assert await clockless.send(time=time.time_ns() // 1_000_000, temperature=21)

    async def stored() -> bool:
        return len(await site.history("plain:clockless")) == 4

    await site.until(stored)
    rows = {row["data"]["temperature"]: row for row in await site.history("plain:clockless")}
    assert {value: row["time_replaced"] for value, row in rows.items()} == {
        20: False,
        1970: True,
        2099: True,
        21: False,
    }
    assert (rows[1970]["time"], rows[2099]["time"]) == (86_400_000, YEAR_2099_MS), "kept as they came"
    for value in (1970, 2099):
        by_anchor = rows[value]["time_error_ms"] or 0  # the machine's clock may not be synchronized
        assert abs(rows[value]["event_time"] - rows[value]["received_time"]) <= by_anchor + 1
        assert abs(rows[value]["received_time"] - now_ms) < 60_000
    assert (await site.current("plain:clockless"))["temperature"] == 21, "not 2099's, which would stay for ever"


# Checksums


async def test_a_batch_with_a_wrong_checksum_on_the_gateways_bus(site: WatchedSite) -> None:
    await site.device("plain", "sensor")
    found = running(site.folder / "gateway")
    assert found is not None
    before = await site.gateway_status()
    bus = ZeroMqBus.connect(found.bus)
    try:
        key, batch = batch_of("sensor", b'{"n": 1}')
        with pytest.raises(BusRefusedError, match=r"checksum.*CRC-32 does not match"):
            await bus.publish("inbound", flipped(batch, len(batch) - 2), key=key)
        status = await site.gateway_status()
        assert status["refused"]["checksum"] == before["refused"].get("checksum", 0) + 1
        key, batch = batch_of("sensor", b'{"n": 2}')
        await bus.publish("inbound", batch, key=key)
    finally:
        await bus.close()
    await site.until_current("plain:sensor", n=2)


async def test_a_damaged_block_on_the_clouds_link(site: WatchedSite) -> None:
    await site.device("plain", "behind-saboteur")
    url, token = await site.enrol_by_hand("saboteur")
    epoch = secrets.randbits(63)
    _, batch = batch_of("behind-saboteur", b'{"n": 3}')
    now_ms = time.time_ns() // 1_000_000
    block = encode_block([batch], epoch=epoch, first_seq=0, records=1, newest_ms=now_ms, priority=Priority.TELEMETRY)
    async with connect(url, additional_headers={"Authorization": f"Bearer {token}"}, proxy=None) as link:
        await link.send(encode_frame(Hello("test", epoch, 1, 0, now_ms, 0)))
        await frame(link, Welcome)
        await link.send(encode_frame(Blocks(1, Lane.LIVE, Priority.TELEMETRY, (flipped(block, HEAD_BYTES + 9),))))
        answer = await frame(link, Refused)
        assert (answer.request, answer.place, answer.code) == (1, 0, "checksum")
        assert "does not match" in answer.text
        await link.send(encode_frame(Blocks(2, Lane.LIVE, Priority.TELEMETRY, (block,))))
        accepted = await frame(link, Accepted)
        assert [(span.epoch, span.first, span.end) for span in accepted.spans] == [(epoch, 0, 1)]
    await site.until_current("plain:behind-saboteur", n=3)


async def frame(link: ClientConnection, kind: type[Frame]) -> Any:
    """The next frame of that kind; the registry comes in between."""
    async with asyncio.timeout(10):
        while True:
            data = await link.recv()
            assert isinstance(data, bytes)
            found = decode_frame(data)
            if isinstance(found, kind):
                return found


# Expired tokens


async def test_an_expired_token_of_a_gateway(site: WatchedSite) -> None:
    url, token = await site.enrol_by_hand("late", signed_ago_s=3600)
    with pytest.raises(InvalidStatus) as caught:
        await connect(url, additional_headers={"Authorization": f"Bearer {token}"}, proxy=None)
    answer = caught.value.response
    assert answer.status_code == 401
    problem = json.loads(answer.body)
    assert problem["type"] == "urn:tidegate:problem:token-expired"
    assert "expired 3" in problem["detail"]
    assert abs(problem["server_time_ms"] - time.time_ns() // 1_000_000) < 60_000, "so that a clock can be mended"


async def test_an_expired_enrolment_token(site: WatchedSite, tmp_path: Path) -> None:
    made = await site.post("gateways", {"id": "tardy", "name": "Tardy"})
    async with site.database() as database, database.connection() as conn:
        await conn.execute("UPDATE enrolment_token SET expires_at = now() WHERE gateway_id = 'tardy'")
    token = made["enrolment"]["token"]
    code, output = await site.try_command("tidegate-edge", "enroll", site.url, "--token", token, "--data", tmp_path)
    assert code == 1
    assert output == (
        f"error: the cloud at {site.url} answered 403: this enrolment token has expired\n"
        "  try: make a new enrolment token: POST /api/v1/gateways/ID/enrolment-tokens\n"
    )
    renewed = await site.post("gateways/tardy/enrolment-tokens", {})
    await site.command("tidegate-edge", "enroll", site.url, "--token", renewed["token"], "--data", tmp_path)


async def test_an_expired_session(site: WatchedSite) -> None:
    held = jwt.decode(site.client.headers["Authorization"].split()[1], options={"verify_signature": False})
    async with site.database() as database, database.transaction() as conn:
        key = await server_secret(conn, SESSION_SECRET)
    expired = make_token(key, int(held["sub"]), uuid.UUID(held["sid"]), held["ver"], int(time.time()) - 1)
    answer = await site.client.get(f"{site.url}/api/v1/devices", headers={"Authorization": f"Bearer {expired}"})
    assert answer.status_code == 401
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["detail"] == "the session token has expired"
    assert answer.json()["remedy"] == "POST /api/v1/session/refresh gives the next one"


# Configuration and surroundings


@pytest.mark.parametrize("command", ["tidegate-edge", "tidegate-cloud"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('data_dir = "x"\nlog_level = loud\n', "{file}, line 2, column 13: not valid TOML"),
        ("log_level = 'loud'\n", "{file}, line 1: log_level: 'loud'"),
        ("data_dri = 'x'\n", "{file}, line 1: data_dri: no such setting\n  try: data_dir"),
    ],
    ids=["syntax", "value", "name"],
)
async def test_bad_toml(site: WatchedSite, tmp_path: Path, command: str, text: str, message: str) -> None:
    await says(site, tmp_path, command, text, message)


@pytest.mark.parametrize(
    ("command", "text", "message"),
    [
        ("tidegate-edge", "[log]\nmax_bytes = 5\n", "line 2: log.max_bytes: 5 is below the minimum 21495808"),
        ("tidegate-edge", "[[mqtt]]\nname = 'a'\n", "mqtt[0].network: required, and not set"),
        ("tidegate-cloud", "[http]\nport = 70000\n", "line 2: http.port: 70000 is above the maximum 65535"),
        ("tidegate-cloud", "[database]\nurl = 'mysql://u:hush@h/d'\n", "url must begin with postgresql://"),
    ],
)
async def test_settings_beyond_their_limits(
    site: WatchedSite, tmp_path: Path, command: str, text: str, message: str
) -> None:
    await says(site, tmp_path, command, text, message)


async def says(site: WatchedSite, folder: Path, command: str, text: str, message: str) -> None:
    """`run` and `config check` alike end with the message, before anything is started."""
    file = folder / "bad.toml"
    file.write_text(text)
    for words in (("run",), ("config", "check")):
        code, output = await site.try_command(command, *words, "--config", file)
        assert code == 1
        assert output.startswith("error: ")
        assert message.format(file=file) in output
        assert "Traceback" not in output
        assert "hush" not in output


async def test_an_occupied_port_of_the_gateway(site: WatchedSite, tmp_path: Path) -> None:
    taken = site.mqtt_ports["keyed"]
    other = GatewaySite(tmp_path)
    other.enrol()
    file = other.write_config()
    file.write_text(file.read_text().replace("port = 0", f"port = {taken}", 1))
    code, output = await site.try_command("tidegate-edge", "run", "--config", file)
    assert code == 1
    assert f"error: listener 'mqtt' cannot listen on 127.0.0.1:{taken}: the port is in use" in output
    assert f"  try: stop what listens there (ss -ltnp 'sport = :{taken}' names it)" in output
    file.write_text(
        other.write_config().read_text().replace("[status]\nport = 0", f"[status]\nport = {site.status_port}")
    )
    code, output = await site.try_command("tidegate-edge", "run", "--config", file)
    assert code == 1
    assert f"error: the status page cannot listen on 127.0.0.1:{site.status_port}" in output
    assert "set status.port to a free one" in output
    assert "Traceback" not in output


async def test_an_occupied_port_of_the_cloud(site: WatchedSite, tmp_path: Path) -> None:
    file = tmp_path / "cloud.toml"
    file.write_text(f'data_dir = "{tmp_path / "cloud"}"\n[http]\nport = {site.platform.http_port}\n')
    code, output = await site.try_command("tidegate-cloud", "run", "--config", file)
    assert code == 1
    assert output == (
        f"error: cannot listen on 127.0.0.1:{site.platform.http_port}: Address already in use\n"
        "  try: set http.port to a free one (0 takes any), or end what listens there\n"
    )
    assert not (tmp_path / "cloud").exists(), "known before anything was made"


async def test_an_unreachable_database(site: WatchedSite, tmp_path: Path) -> None:
    file = tmp_path / "cloud.toml"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port, reason in ((free_port(), "connection refused"), (silent.getsockname()[1], "no answer within 1 s")):
            file.write_text(
                f'data_dir = "{tmp_path / "cloud"}"\n[http]\nport = 0\n[nats]\nport = {free_port()}\n'
                f'[database]\nurl = "postgresql://tidegate:hush@127.0.0.1:{port}/tidegate"\n'
                "[engines]\nreach_within_s = 1\n"
            )
            for words in (("run",), ("user", "reset", "admin")):
                async with asyncio.timeout(UNREACHABLE_S):
                    code, output = await site.try_command("tidegate-cloud", *words, "--config", file)
                assert code == 1
                assert f"error: the database at 127.0.0.1:{port} cannot be reached: {reason}\n" in output
                assert "  try: start it, correct database.url, or unset it for an embedded one" in output
                assert "hush" not in output
                assert "Traceback" not in output


# A full log; last, as the site is without its cloud for a while


async def test_a_full_log(site: WatchedSite, neighbour: Neighbour) -> None:
    flood, late = await site.device("plain", "flood"), await site.device("plain", "late")
    await site.cloud.stop()
    promised = 0
    async with flood.connected():
        while await flood.send(seq=promised + 1, fill=base64.b64encode(os.urandom(180_000)).decode()):
            promised += 1
            assert promised * 180_000 < 2 * LOG_BYTES_MIN, "it must be full by now"
            if promised == 40:
                await neighbour.pause()  # while nothing is taken, a message of its would end its connection, too
    status = await site.gateway_status()
    assert promised > 40
    assert status["log"]["used_bytes"] <= status["log"]["max_bytes"] == LOG_BYTES_MIN
    assert status["refused"]["log-full"] >= 1
    assert status["log"]["trouble"].startswith("log-full: ")
    newest = await site.newest_refused("flood")
    assert (newest["code"], newest["detail"]) == ("log-full", "1 records were not taken")
    ready = await site.client.get(f"{site.status_url}/readyz")
    assert ready.status_code == 503
    assert "log-full" in ready.json()["reasons"][0]
    assert await neighbour.still_connected()
    assert await late.connect() == 0, "who sends nothing, or comes, is let in"

    await site.start_cloud()

    async def drained() -> bool:
        return bool((await site.gateway_status())["totals"]["pending"] == 0)

    await site.until(drained)
    assert await neighbour.still_connected(), "on the same connection all the time"
    neighbour.resume()

    async def ready_again() -> bool:
        assert await late.send(good=True)
        return (await site.client.get(f"{site.status_url}/readyz")).status_code == 200

    await site.until(ready_again)
    await late.close()
    await site.until_stored("plain:flood", list(range(1, promised + 1)))
    await site.until_current("plain:flood", seq=promised)


async def test_the_neighbour_lost_nothing_and_nothing_was_doubled(site: WatchedSite, neighbour: Neighbour) -> None:
    await neighbour.pause()
    await site.until_stored("keyed:neighbour", neighbour.acknowledged)
    neighbour.resume()
