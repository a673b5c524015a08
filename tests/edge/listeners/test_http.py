from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from edge.listeners.http import mailbox
from edge.listeners.http.connection import IDLE_TICKS, REQUEST_TICKS, HttpConnection
from edge.listeners.http.listener import HttpListener
from edge.listeners.way import DeviceAbsentError, DeviceGoneError
from protocols.limits import PAYLOAD_BYTES_MAX
from protocols.messages import Command, Origin, Priority
from sync.bus.contract import BusRefusedError
from sync.registry import Device, Registry, RegistryChange
from tests.edge.listeners.frame_world import Attended
from tests.edge.listeners.http_world import PUMP, Client, basic, get, listening, post
from tests.edge.listeners.mqtt_world import World, digest, until
from tests.fuzz.parsers.http import Hub
from tests.fuzz.transport import NO_LOOP, Wire
from tests.fuzz.work import memory_of
from tidegate.console import UserError

pytestmark = pytest.mark.servers

COMMAND = Command("c-1", 1, "reboot", b"now", 0)


@pytest.fixture
async def world() -> World:
    return World()


@pytest.fixture
async def listener(world: World) -> AsyncIterator[HttpListener]:
    async with listening(world) as made:
        yield made


@pytest.fixture
async def client(listener: HttpListener) -> AsyncIterator[Client]:
    async with Client.open(listener.port) as made:
        yield made


async def test_an_answer_comes_only_after_the_record_is_safe(
    world: World, listener: HttpListener, client: Client
) -> None:
    world.bus.hold()
    client.writer.write(post())
    await world.bus.reached(1)
    async with Client.open(listener.port) as other:  # the server reads and answers, but not what is not safe
        assert (await other.asks(get("/pump"))).status == 405
    assert listener.counters.recorded == 0
    world.bus.release()
    assert (await client.reply()).status == 204
    (record,) = world.bus.records
    assert record.origin == Origin("quay", "serial", "pump", "pump", "", "http")
    assert record.payload == b'{"t":1}'
    assert (listener.counters.recorded, listener.counters.connections) == (1, 1)


async def test_requests_in_one_write_are_answered_one_after_the_other(world: World, client: Client) -> None:
    replies = [await client.asks(b"".join(post(body=b"%d" % number) for number in range(200)))]
    replies += [await client.reply() for _ in range(199)]
    assert {reply.status for reply in replies} == {204}
    assert [record.payload for record in world.bus.records] == [b"%d" % number for number in range(200)]


async def test_thousands_of_polls_in_one_write(client: Client) -> None:
    client.writer.write(get("/pump/down?wait=0") * 3000)
    assert {(await client.reply()).status for _ in range(3000)} == {204}


async def test_a_body_in_chunks_byte_by_byte(world: World, client: Client) -> None:
    whole = (
        f"POST /pump HTTP/1.1\r\nHost: g\r\n{PUMP}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    for byte in whole.encode():
        client.writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert (await client.reply()).status == 204
    assert world.bus.records[0].payload == b"abcde"


async def test_a_client_that_ends_its_side_still_gets_its_answer(client: Client) -> None:
    client.writer.write(post())
    client.writer.write_eof()
    assert (await client.reply()).status == 204
    assert await client.ended() == b""


async def test_a_client_that_waits_for_leave_to_send_gets_it(world: World, client: Client) -> None:
    head = PUMP + "Expect: 100-continue\r\n"
    request = post(body=b"later", head=head)
    reply = await client.asks(request.removesuffix(b"later"))
    assert reply.status == 100
    assert (await client.asks(b"later")).status == 204


@pytest.mark.parametrize(
    ("content_type", "codec"),
    [("application/json", "json"), ("application/senml+json", "senml"), ("text/plain", ""), ("", "")],
)
async def test_the_content_type_says_the_codec(world: World, client: Client, content_type: str, codec: str) -> None:
    head = f"{PUMP}Content-Type: {content_type}\r\n" if content_type else PUMP
    assert (await client.asks(post(head=head))).status == 204
    assert world.bus.records[0].origin.codec == codec


async def test_the_codec_of_the_configuration_counts_more(world: World) -> None:
    async with listening(world, codec="cbor") as listener, Client.open(listener.port) as client:
        assert (await client.asks(post(head=PUMP + "Content-Type: application/json\r\n"))).status == 204
    assert world.bus.records[0].origin.codec == "cbor"


async def test_paths_by_template_and_priorities_by_path(world: World) -> None:
    templates = ["/sensors/{serial}/#"]
    rules = [{"topics": ["sensors/+/alarm"], "priority": "alarm"}]
    async with (
        listening(world, templates=templates, priorities=rules) as listener,
        Client.open(listener.port) as client,
    ):
        for path, status in (("/sensors/pump/up", 204), ("/sensors/pump/alarm", 204), ("/pump", 404)):
            assert (await client.asks(post(path))).status == status
    origins = [record.origin for record in world.bus.records]
    assert sorted((origin.topic, origin.alias, origin.priority) for origin in origins) == [
        ("sensors/pump/alarm", "pump", Priority.ALARM),
        ("sensors/pump/up", "pump", Priority.TELEMETRY),
    ]


@pytest.mark.parametrize(
    ("path", "head", "status", "code"),
    [
        ("/pump", "", 401, "no-credentials"),
        ("/pump", basic("pump", "wrong"), 401, "wrong-password"),
        ("/pump", basic("x" * 200, "wrong"), 401, "bad-name"),
        ("/pump", "Authorization: Bearer wrong\r\n", 401, "wrong-password"),
        ("/pump", "Authorization: Digest x\r\n", 400, "malformed"),
        ("/pump", "Authorization: Basic !\r\n", 400, "malformed"),
        ("/other", PUMP, 403, "other-device"),
        ("/a/b", PUMP, 404, "no-path"),
        ("/", PUMP, 404, "no-path"),
        ("/pump/down/c-1/received", PUMP, 404, "no-command"),
        ("/pump", PUMP + "Content-Encoding: gzip\r\n", 415, "content-encoding"),
    ],
)
async def test_what_is_not_taken_is_a_problem_with_a_remedy(
    world: World, listener: HttpListener, client: Client, path: str, head: str, status: int, code: str
) -> None:
    problem = (await client.asks(post(path, head=head))).problem
    assert (problem["status"], problem["type"]) == (status, f"urn:tidegate:problem:{code}")
    assert problem["remedy"]
    assert (await client.asks(post())).status == 204  # the connection goes on
    if code != "no-command":
        assert listener.refusals.counts == {code.replace("-", "_"): 1}
    assert listener.counters.auth_failures == (status in (401, 403))


async def test_the_password_alone_is_enough_where_the_path_names_the_device(world: World, client: Client) -> None:
    for path, head in (
        ("/pump", basic("", "pump-secret")),
        ("/pump", "Authorization: Bearer pump-secret\r\n"),
        ("/pump", basic("serial:pump", "pump-secret")),
        ("/new", "Authorization: Bearer network\r\n"),
    ):
        assert (await client.asks(post(path, head=head))).status == 204
    assert [record.origin.alias for record in world.bus.records] == ["pump", "pump", "pump", "new"]


async def test_guessing_ends_and_is_told_when_to_try_again(client: Client) -> None:
    for _ in range(5):
        assert (await client.asks(post(head=basic("pump", "guess")))).status == 401
    reply = await client.asks(post())
    assert reply.problem["type"] == "urn:tidegate:problem:too-many-guesses"
    assert (reply.status, reply.headers["retry-after"]) == (429, "60")


async def test_an_open_listener_asks_nobody(world: World) -> None:
    async with (
        listening(world, open=True, templates=["up", "/{mac}"]) as listener,
        Client.open(listener.port) as client,
    ):
        assert (await client.asks(post("/up", head=""))).status == 204
        assert (await client.asks(post("/0a-1b", head=""))).status == 204
        assert (await client.asks(get("/up/down", head=""))).problem["type"].endswith("no-device")
    names = [(record.origin.alias_key, record.origin.alias) for record in world.bus.records]
    assert names == [("serial", ""), ("mac", "0a-1b")]  # the payload names the first one's device


async def test_a_gateway_without_a_registry_says_when_to_try_again() -> None:
    world = World(registry=Registry("demo"))
    async with listening(world) as listener, Client.open(listener.port) as client:
        reply = await client.asks(post())
    assert (reply.status, reply.headers["retry-after"]) == (503, "5")
    assert "link is up" in reply.problem["remedy"]


async def test_what_cannot_be_recorded_is_told_and_counted(
    world: World, listener: HttpListener, client: Client
) -> None:
    world.bus.failures.append(BusRefusedError("log_full", "no room"))
    reply = await client.asks(post())
    assert (reply.status, reply.headers["retry-after"]) == (503, "5")
    assert reply.problem["type"] == "urn:tidegate:problem:log-full"
    assert listener.counters.refused == {"log_full": 1}
    assert (await client.asks(post())).status == 204


async def test_a_message_that_is_too_large(world: World, listener: HttpListener) -> None:
    async with Client.open(listener.port) as client:  # one that says so first
        head = post(body=b"x" * (PAYLOAD_BYTES_MAX + 1))
        assert (await client.asks(head)).status == 413
        assert await client.ended() == b""
    async with Client.open(listener.port) as client:  # one that goes on and on
        client.writer.write(f"POST /pump HTTP/1.1\r\nHost: g\r\n{PUMP}Transfer-Encoding: chunked\r\n\r\n".encode())
        client.writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        client.writer.write(b"40000\r\n" + b"x" * 262144)
        assert (await client.reply()).status == 413
    async with Client.open(listener.port) as client:  # one that just fits
        assert (await client.asks(post(body=b"x" * PAYLOAD_BYTES_MAX))).status == 204
    assert listener.refusals.counts == {"payload_too_large": 2}


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64) + b"\r\n\r\n",
        b"POST /pump HTTP/1.1\r\n\r\n",
        b"POST /pump HTTP/1.1\r\nHost: g\r\nContent-Length: -1\r\n\r\n",
        b"POST /pump HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"x" * 20_000,
        b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00\r\n\r\n",
        b"POST http://[::1/pump HTTP/1.1\r\nHost: g\r\n\r\n",
    ],
)
async def test_what_is_no_http_gets_an_answer_and_is_kept_to_look_at(listener: HttpListener, data: bytes) -> None:
    async with Client.open(listener.port) as client:
        reply = await client.asks(data)
        assert 400 <= reply.status < 600
        assert reply.headers["connection"] == "close"
        assert await client.ended() == b""
    assert listener.counters.malformed == 1
    assert set(listener.refusals.counts) == {"malformed"}


async def test_a_head_request_gets_no_body(client: Client) -> None:
    client.writer.write(get("/pump").replace(b"GET", b"HEAD"))
    head = (await client.reader.readuntil(b"\r\n\r\n")).decode()
    assert head.startswith("HTTP/1.1 405 ")
    assert (await client.asks(post())).status == 204


async def test_what_is_no_http_behind_a_head_request_gets_an_answer_with_a_body(client: Client) -> None:
    client.writer.write(get("/pump").replace(b"GET", b"HEAD") + b"\x00\r\n\r\n")
    await client.reader.readuntil(b"\r\n\r\n")
    assert (await client.reply()).problem["type"] == "urn:tidegate:problem:malformed"
    assert await client.ended() == b""


async def test_a_path_that_begins_with_two_slashes_is_one_of_no_device(client: Client) -> None:
    assert (await client.asks(post("//pump"))).problem["type"] == "urn:tidegate:problem:no-path"


def test_what_comes_behind_a_poll_is_not_read_before_it_is_answered() -> None:
    wire, hub = Wire(), Hub()
    connection = HttpConnection(hub, NO_LOOP)
    wire.connect(connection)
    assert wire.deliver(get("/pump/down"))
    assert not wire.is_paused, "to see when the client leaves"
    assert wire.deliver(post())
    assert wire.is_paused
    connection.replaced()
    hub.settle()
    assert not wire.is_paused
    assert bytes(wire.written).count(b"HTTP/1.1 204 ") == 2


def test_a_body_in_chunks_of_two_bytes_takes_as_much_memory_as_its_bytes() -> None:
    wire = Wire()
    wire.connect(HttpConnection(Hub(), NO_LOOP))
    wire.deliver(b"POST /pump HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n")

    def deliver_half() -> None:
        for _ in range(PAYLOAD_BYTES_MAX // 4000):
            assert wire.deliver(b"2\r\nxy\r\n" * 1000)

    assert memory_of(deliver_half).kept < PAYLOAD_BYTES_MAX


async def test_a_request_that_comes_too_slowly(listener: HttpListener, client: Client) -> None:
    assert (await client.asks(post())).status == 204
    client.writer.write(post()[:20])
    await until(lambda: listener.counters.bytes_in == len(post()) + 20)
    for tick in range(REQUEST_TICKS):
        if tick == REQUEST_TICKS // 2:
            client.writer.write(post()[20:21])  # a byte now and then does not help
            await until(lambda: listener.counters.bytes_in == len(post()) + 21)
        listener.wheel.turn()
    assert (await client.reply()).status == 408
    assert listener.refusals.counts == {"request_timeout": 1}


async def test_a_connection_without_requests_is_closed_in_silence(listener: HttpListener, client: Client) -> None:
    assert (await client.asks(post())).status == 204
    for _ in range(IDLE_TICKS):
        listener.wheel.turn()
    assert await client.ended() == b""
    assert listener.refusals.counts == {}


async def test_a_port_in_use_is_named(world: World, listener: HttpListener) -> None:
    with pytest.raises(UserError, match=f"'http' cannot listen on 127.0.0.1:{listener.port}: the port is in use"):
        async with listening(world, port=listener.port):
            pass


async def test_one_connection_more_than_allowed(world: World) -> None:
    async with listening(world, connections_max=1) as listener, Client.open(listener.port) as first:
        assert (await first.asks(post())).status == 204
        async with Client.open(listener.port) as second:
            reply = await second.reply()
            assert (reply.status, reply.headers["retry-after"]) == (503, "5")
        assert (await first.asks(post())).status == 204


async def test_a_device_over_its_rate_is_told_when_to_come_again_and_others_go_on(world: World) -> None:
    async with listening(world, messages_per_s_max=2) as listener, Client.open(listener.port) as client:
        for number in range(4):
            assert (await client.asks(post(body=b"%d" % number))).status == 204
        for path in ("/pump", "/pump/response/c-1"):
            reply = await client.asks(post(path, b"4"))
            assert (reply.status, reply.headers["retry-after"]) == (429, "1")
            assert reply.problem["type"].endswith(":too-frequent")
        assert (await client.asks(get("/pump/down?wait=0"))).status == 204, "asking for commands is no message"
        assert (await client.asks(post("/tank", head=basic("tank", "network")))).status == 204
        listener.wheel.turn()
        assert (await client.asks(post(body=b"4"))).status == 204
        assert [record.payload for record in world.bus.records] == [b"0", b"1", b"2", b"3", b'{"t":1}', b"4"]
        assert listener.refusals.counts["too_frequent"] == 2


class TestCommands:
    async def test_a_poll_waits_for_a_command_and_its_confirmation_makes_it_delivered(
        self, listener: HttpListener, client: Client
    ) -> None:
        client.writer.write(get("/pump/down?wait=30"))
        await until(lambda: listener.way("serial", "pump") is not None)
        sending = asyncio.create_task(_send(listener, COMMAND))
        reply = await client.reply()
        assert (reply.status, reply.body) == (200, b"now")
        assert (reply.headers["tidegate-command"], reply.headers["tidegate-command-id"]) == ("reboot", "c-1")
        again = await client.asks(get("/pump/down?wait=0"))
        assert again.headers["tidegate-command-id"] == "c-1"  # not confirmed: its answer may have been lost
        assert not sending.done()
        assert (await client.asks(post("/pump/down/c-1/received", b""))).status == 204
        await sending
        assert (await client.asks(get("/pump/down?wait=0"))).status == 204

    async def test_an_answer_is_recorded_and_confirms(
        self, world: World, listener: HttpListener, client: Client
    ) -> None:
        assert (await client.asks(get("/pump/down?wait=0"))).status == 204
        sending = asyncio.create_task(_send(listener, COMMAND))
        await asyncio.sleep(0)
        assert (await client.asks(get("/pump/down?wait=30"))).body == b"now"
        assert (await client.asks(post("/pump/response/c-1", b'{"ok":true}'))).status == 204
        await sending
        (record,) = world.bus.records
        assert record.origin == Origin(
            "quay", "serial", "pump", "pump/response/c-1", "response", "http", Priority.EVENT
        )

    async def test_commands_come_in_order(self, listener: HttpListener, client: Client) -> None:
        await client.asks(get("/pump/down?wait=0"))
        commands = [Command(f"c-{number}", 1, "set", b"%d" % number, 0) for number in range(3)]
        sending = [asyncio.create_task(_send(listener, command)) for command in commands]
        await asyncio.sleep(0)
        for command in commands:
            assert (await client.asks(get("/pump/down?wait=30"))).body == command.payload
            assert (await client.asks(post(f"/pump/down/{command.id}/received", b""))).status == 204
        await asyncio.gather(*sending)

    async def test_a_device_that_never_polled_has_no_way(self, listener: HttpListener) -> None:
        assert listener.way("serial", "pump") is None

    async def test_a_device_that_does_not_come_is_absent_and_one_that_does_not_confirm_is_gone(
        self, listener: HttpListener, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mailbox, "FETCH_S", 0.01)
        monkeypatch.setattr(mailbox, "RECEIVED_S", 0.01)
        await client.asks(get("/pump/down?wait=0"))
        with pytest.raises(DeviceAbsentError, match="did not ask"):
            await _send(listener, COMMAND)
        client.writer.write(get("/pump/down?wait=30"))
        await until(lambda: listener.counters.bytes_in == len(get("/pump/down?wait=30")) * 2 - 1)
        with pytest.raises(DeviceGoneError, match="did not confirm"):
            await _send(listener, COMMAND)

    async def test_each_poll_says_that_the_device_can_be_reached(self, world: World) -> None:
        attended = Attended()
        async with listening(world, attendance=attended) as listener, Client.open(listener.port) as client:
            await client.asks(post())
            assert attended.told == []
            for _ in range(2):
                assert (await client.asks(get("/pump/down?wait=0"))).status == 204
            assert attended.told == [("http", "quay", "serial", "pump")] * 2

    async def test_a_poll_ends_without_a_command(self, listener: HttpListener, client: Client) -> None:
        client.writer.write(get("/pump/down?wait=3"))
        await until(lambda: listener.way("serial", "pump") is not None)
        for _ in range(3):
            listener.wheel.turn()
        assert (await client.reply()).status == 204
        assert (await client.asks(post())).status == 204

    async def test_the_newest_poll_of_a_device_gets_the_command(self, listener: HttpListener, client: Client) -> None:
        client.writer.write(get("/pump/down?wait=30"))
        await until(lambda: listener.way("serial", "pump") is not None)
        async with Client.open(listener.port) as second:
            second.writer.write(get("/pump/down?wait=30"))
            assert (await client.reply()).status == 204
            sending = asyncio.create_task(_send(listener, COMMAND))
            assert (await second.reply()).body == b"now"
            await second.asks(post("/pump/down/c-1/received", b""))
            await sending

    async def test_a_wait_that_is_no_time(self, client: Client) -> None:
        for wait in ("x", "-1", "301", "1e9"):
            assert (await client.asks(get(f"/pump/down?wait={wait}"))).problem["type"].endswith(":wait")

    async def test_a_poll_ends_when_its_credential_does(
        self, world: World, listener: HttpListener, client: Client
    ) -> None:
        client.writer.write(get("/pump/down?wait=30"))
        await until(lambda: listener.way("serial", "pump") is not None)
        old = world.registry.devices[1]
        new = Device(1, "site", "pump", old.aliases, None, (digest("new"),))
        world.registry.apply(RegistryChange("demo", 1, 2, devices=(new,)))
        listener.recheck()
        assert await client.ended() == b""


async def _send(listener: HttpListener, command: Command) -> None:
    way = listener.way("serial", "pump")
    assert way is not None
    await way.send(command)
