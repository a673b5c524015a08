"""Frames over TCP, from clients that others wrote: nc and socat, plain and TLS; and from sockets where bytes count."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edge.listeners import frames, tcp
from edge.listeners.stream_config import TcpConfig
from edge.listeners.tcp import TcpDialer, TcpListener, make_listener
from edge.listeners.way import CommandRefusedError
from protocols.framing.spec import FramingSpec
from protocols.messages import Origin, Priority
from tests.contract.certificates import Authority
from tests.edge.listeners.frame_world import ANSWER_S, FrameWorld, client, restart, until
from tidegate.console import UserError


@pytest.fixture
def world(tmp_path: Path) -> FrameWorld:
    return FrameWorld(tmp_path)


def config(**settings: Any) -> TcpConfig:
    given: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "open": True, "ack": "OK {count}\n"}
    return TcpConfig("tcp", "quay", **(given | settings))


@contextlib.asynccontextmanager
async def connected(listener: TcpListener) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_nc_is_answered_once_its_lines_are_on_disk(world: FrameWorld) -> None:
    world.bus.hold()
    async with world.listening(TcpListener, config(device="serial:7", priority="event", codec="csv")) as listener:
        talk = asyncio.create_task(client("nc", "-N", "127.0.0.1", str(listener.port), data=b"a\nbc\r\n\nd\n"))
        await world.bus.reached(1)
        assert not talk.done()
        assert listener.counters.recorded == 0
        world.bus.release()
        assert await talk == b"OK 1\nOK 2\nOK 3\n"
        assert world.payloads == [b"a", b"bc", b"d"]
        assert world.bus.records[0].origin == Origin("quay", "serial", "7", "", "csv", "tcp", Priority.EVENT)
        await until(lambda: listener.counters.connections == 0)
        assert (listener.counters.recorded, listener.counters.connections_total) == (3, 1)
        assert (listener.kind, listener.place) == ("tcp", f"127.0.0.1:{listener.port}")


async def test_socat_sends_frames_with_a_length_and_gets_bytes(world: FrameWorld) -> None:
    settings = config(framing=FramingSpec("length", checksum="CRC-16/MODBUS"), ack="hex:06", nack="hex:15")
    async with world.listening(TcpListener, settings) as listener:
        frame = listener.rules.framing.encode(b"\x00payload")
        sent = frame + frame[:-1] + b"\x00" + frame
        answered = await client("socat", "-t1", "-", f"TCP:127.0.0.1:{listener.port}", data=sent)
        assert sorted(answered) == sorted(b"\x06\x15\x06")
        assert await world.came(2) == 2 * [b"\x00payload"]
        assert world.bus.records[0].origin.alias_key == "ip"
        assert world.bus.records[0].origin.alias == "127.0.0.1"
        assert listener.refusals.counts == {"checksum": 1}
        assert listener.refusals.last[0].data == frame[2:-1] + b"\x00"
        assert listener.counters.malformed == 1


async def test_socat_with_a_certificate_is_the_device_that_it_names(world: FrameWorld, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server, device = authority.issue("localhost"), authority.issue("esn:5551212")
    settings = config(
        open=False, tls_cert=str(server.cert), tls_key=str(server.key), tls_client_ca=str(authority.certificate)
    )
    async with world.listening(TcpListener, settings) as listener:
        place = f"OPENSSL:localhost:{listener.port},pf=ip4,cafile={authority.certificate}"
        shown = f"{place},cert={device.cert},key={device.key}"
        assert await client("socat", "-t1", "-", shown, data=b"hello\n", waits=True) == b"OK 1\n"
        assert world.bus.records[0].origin.alias_key == "esn"
        assert world.bus.records[0].origin.alias == "5551212"
        with contextlib.suppress(AssertionError):  # whether socat calls that a failure depends on when it is told
            assert await client("socat", "-t1", "-", place, data=b"hello\n") == b""
        assert len(world.payloads) == 1


async def test_the_first_frame_may_name_the_device(world: FrameWorld) -> None:
    async with world.listening(TcpListener, config(login="ID {imei}")) as listener:
        async with connected(listener) as (reader, writer):
            writer.write(b"ID 861234\nhello\n")
            assert await reader.readline() == b"OK 1\n"
            origin = world.bus.records[0].origin
            assert (origin.alias_key, origin.alias, world.payloads) == ("imei", "861234", [b"hello"])
            assert listener.way("imei", "861234") is not None
        async with connected(listener) as (reader, writer):
            writer.write(b"hello\n")
            assert await reader.read() == b""
        assert (listener.refusals.counts, listener.counters.auth_failures) == ({"login": 1}, 1)


async def test_a_command_is_a_frame_to_the_device_and_its_answer_a_record(world: FrameWorld) -> None:
    async with world.listening(TcpListener, config(device="serial:7", ack="")) as listener:
        assert listener.way("serial", "7") is None
        async with connected(listener) as (reader, writer):
            await until(lambda: listener.counters.connections == 1)
            way = listener.way("serial", "7")
            assert way is not None
            assert not way.confirms
            assert listener.way("serial", "8") is None
            await way.send(restart(b'{"after_s":5}'))
            assert await reader.readline() == b'{"command":"restart","id":"c1","payload":{"after_s":5}}\n'
            await way.send(restart(b"now"))
            assert await reader.readline() == b'{"command":"restart","id":"c1","payload":"now"}\n'
            await way.send(restart(b"\xff"))
            assert await reader.readline() == b'{"command":"restart","id":"c1","payload":{"hex":"ff"}}\n'
            await way.send(restart(b""))
            assert await reader.readline() == b'{"command":"restart","id":"c1"}\n'
            answer = b'{"response":"0d3f5f0e-0a52-4b8e-9a7e-52d4cf5f3d11","ok":true}'
            writer.write(b'{"response":"mine"}\n' + answer + b'\n{"n":1}\n')
            await world.came(3)
            kinds = {record.payload: (record.origin.codec, record.origin.priority) for record in world.bus.records}
            assert kinds == {
                b'{"response":"mine"}': ("", Priority.TELEMETRY),
                answer: ("response", Priority.EVENT),
                b'{"n":1}': ("", Priority.TELEMETRY),
            }
            with pytest.raises(CommandRefusedError, match="65,536"):
                await way.send(restart(b"x" * 70_000))
        await until(lambda: listener.way("serial", "7") is None)


async def test_who_comes_and_goes_is_told_with_the_reason(world: FrameWorld) -> None:
    name = ("tcp", "quay", "imei", "7")
    async with world.listening(TcpListener, config(login="ID {imei}", framing=FramingSpec("line", 20))) as listener:
        async with connected(listener) as (reader, writer):
            await until(lambda: listener.counters.connections == 1)
            assert world.attendance.told == []
            writer.write(b"ID 7\n")
            await until(lambda: world.attendance.told == [name])
            writer.write_eof()
            assert await reader.read() == b""
        await until(lambda: world.attendance.told == [name, (*name, "disconnected")])
        async with connected(listener) as (_, writer):
            writer.write(b"ID 7\n")
            await until(lambda: len(world.attendance.told) == 3)
            resets = struct.pack("ii", 1, 0)  # a close that is no goodbye
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, resets)
        await until(lambda: world.attendance.told[3:] == [(*name, "connection lost")])
        async with connected(listener) as (reader, writer):
            writer.write(b"ID 7\n")
            await until(lambda: len(world.attendance.told) == 5)
            await listener.close()
            assert world.attendance.told[5:] == [(*name, "the gateway stops")]
    async with world.listening(TcpListener, config(identity="payload")) as listener, connected(listener):
        await until(lambda: listener.counters.connections == 1)
        assert len(world.attendance.told) == 6


async def test_a_command_may_be_its_payload_alone(world: FrameWorld) -> None:
    settings = config(device="serial:7", commands="payload", framing=FramingSpec("cobs"))
    async with world.listening(TcpListener, settings) as listener, connected(listener) as (reader, _):
        await until(lambda: listener.counters.connections == 1)
        way = listener.way("serial", "7")
        assert way is not None
        await way.send(restart(b"\x00\x01"))
        assert await reader.readexactly(4) == b"\x01\x02\x01\x00"


async def test_what_the_log_does_not_take_is_not_acknowledged(world: FrameWorld) -> None:
    from sync.bus.contract import BusRefusedError

    async with world.listening(TcpListener, config()) as listener:
        world.bus.failures.append(BusRefusedError("log_full", "2 GB of 2 GB"))
        async with connected(listener) as (reader, writer):
            writer.write(b"a\n")
            assert await reader.read() == b""
        assert listener.counters.refused == {"log_full": 1}
        assert listener.refusals.counts == {"log_full": 1}
    async with world.listening(TcpListener, config(nack="NO {code}\n")) as listener:
        world.bus.failures.append(BusRefusedError("log_full", "2 GB of 2 GB"))
        async with connected(listener) as (reader, writer):
            writer.write(b"a\n")
            assert await reader.readline() == b"NO log_full\n"
            writer.write(b"b\n")
            assert await reader.readline() == b"OK 1\n"


async def test_half_a_frame_is_kept_to_be_looked_at_and_never_recorded(
    world: FrameWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.listening(TcpListener, config()) as listener:
        async with connected(listener) as (_, writer):
            writer.write(b"whole\nhal")
            await world.came(1)
        await until(lambda: bool(listener.refusals.counts))
        assert (listener.refusals.last[0].code, listener.refusals.last[0].data) == ("half_frame", b"hal")
    monkeypatch.setattr("edge.listeners.lines.TICK_S", 0.005)
    async with world.listening(TcpListener, config()) as listener, connected(listener) as (reader, writer):
        writer.write(b"hal")
        assert await reader.read() == b""
        assert "half_frame" in listener.refusals.counts
    assert world.payloads == [b"whole"]


async def test_a_connection_may_be_silent_unless_it_is_said_otherwise(
    world: FrameWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.listeners.lines.TICK_S", 0.001)
    async with world.listening(TcpListener, config()) as listener, connected(listener) as (reader, writer):
        await until(lambda: listener.wheel.now > 3 * tcp.FRAME_TICKS)
        writer.write(b"a\n")
        assert await reader.readline() == b"OK 1\n"
    async with world.listening(TcpListener, config(silence_s=2)) as listener, connected(listener) as (reader, _):
        assert await reader.read() == b""
        assert listener.refusals.counts == {"silent": 1}


async def test_frames_that_are_too_long_cost_themselves_only(world: FrameWorld) -> None:
    settings = config(framing=FramingSpec("line", 10), nack="NO {code}\n")
    async with world.listening(TcpListener, settings) as listener, connected(listener) as (reader, writer):
        writer.write(b"x" * 1_000_000 + b"\nshort\n")
        answers = {await reader.readline(), await reader.readline()}
        assert answers == {b"NO oversize\n", b"OK 1\n"}
        assert world.payloads == [b"short"]


async def test_a_length_that_cannot_be_ends_the_connection(world: FrameWorld) -> None:
    settings = config(framing=FramingSpec("length", 10))
    async with world.listening(TcpListener, settings) as listener, connected(listener) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await reader.read() == b""
        assert listener.refusals.counts == {"length": 1, "framing": 1}
        assert listener.refusals.last[0].data.startswith(b"GET /")


async def test_a_flood_of_noise_is_counted_and_does_not_stop_a_neighbour(world: FrameWorld) -> None:
    settings = config(framing=FramingSpec("slip"))
    async with (
        world.listening(TcpListener, settings) as listener,
        connected(listener) as (_, flood),
        connected(listener) as (reader, writer),
    ):
        flood.write(b"\xdb\x00\xc0" * 50_000)
        writer.write(listener.rules.framing.encode(b"hello"))
        assert await reader.readline() == b"OK 1\n"
        await until(lambda: listener.counters.malformed == 50_000)
        assert listener.refusals.counts == {"escape": 50_000}
        assert len(listener.refusals.last) <= 64


async def test_one_that_floods_is_not_read_while_what_it_sent_waits(
    world: FrameWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "LINE_RECORDS_MAX", 10)
    world.bus.hold()
    async with (
        world.listening(TcpListener, config()) as listener,
        connected(listener) as (_, flood),
        connected(listener) as (reader, writer),
    ):
        flood.write(b"a\n" * 20)
        await until(lambda: any(line.is_held for line in listener.lines))
        before = listener.counters.bytes_in
        flood.write(b"b\n" * 20)
        writer.write(b"c\n")
        await until(lambda: listener.counters.bytes_in == before + 2)
        world.bus.release()
        assert await reader.readline() == b"OK 1\n"
        await world.came(41)


async def test_a_read_of_many_frames_is_taken_as_there_is_room(
    world: FrameWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "LINE_RECORDS_MAX", 100)
    monkeypatch.setattr(frames, "SLICE_BYTES", 64)
    world.bus.hold()
    async with world.listening(TcpListener, config(ack="x")) as listener, connected(listener) as (reader, writer):
        sent = [b"%d" % number for number in range(5_000)]
        writer.write(b"\n".join(sent) + b"\nhalf")
        await world.bus.reached(1)
        assert world.collector.waiting_records <= 100 + 64
        world.bus.release()
        assert await reader.readexactly(5_000) == b"x" * 5_000
        writer.write_eof()
        assert await reader.read() == b""
        assert world.payloads == sent
        assert listener.refusals.counts == {"half_frame": 1}


async def test_a_device_that_reads_no_answers_is_cut_off(world: FrameWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "WRITE_BYTES_MAX", 1000)
    async with world.listening(TcpListener, config(ack="x" * 200)) as listener, connected(listener) as (reader, writer):
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                writer.write(b"a\n" * 1000)
                await writer.drain()
                if listener.refusals.counts:
                    break
        await until(lambda: listener.refusals.counts.get("slow_reader", 0) == 1)


async def test_more_connections_than_allowed_are_turned_away(world: FrameWorld) -> None:
    async with world.listening(TcpListener, config(connections_max=1)) as listener:
        async with connected(listener) as (reader, writer):
            writer.write(b"a\n")
            await reader.readline()
            async with connected(listener) as (second, _):
                assert await second.read() == b""
            assert listener.refusals.counts == {"connection_limit": 1}
        await until(lambda: listener.counters.connections == 0)
        async with connected(listener) as (reader, writer):
            writer.write(b"b\n")
            assert await reader.readline() == b"OK 1\n"


async def test_a_silence_ends_a_frame(world: FrameWorld) -> None:
    settings = config(framing=FramingSpec("gap", gap_ms=20))
    async with world.listening(TcpListener, settings) as listener, connected(listener) as (reader, writer):
        writer.write(b"\x01\x02")
        assert await reader.readline() == b"OK 1\n"
        writer.write(b"\x03")
        assert await reader.readline() == b"OK 2\n"
        assert world.payloads == [b"\x01\x02", b"\x03"]


async def test_a_port_in_use_is_named(world: FrameWorld) -> None:
    async with world.listening(TcpListener, config()) as listener:
        with pytest.raises(UserError, match="the port is in use"):
            await TcpListener(config(port=listener.port), world.shared).start()


async def test_what_came_before_the_end_is_answered_at_close(world: FrameWorld) -> None:
    world.bus.hold()
    async with world.listening(TcpListener, config()) as listener, connected(listener) as (reader, writer):
        writer.write(b"a\n")
        await world.bus.reached(1)
        closing = asyncio.create_task(listener.close())
        world.bus.release()
        assert await reader.read() == b"OK 1\n"
        await closing


async def test_the_gateway_connects_to_a_device_and_connects_again(
    world: FrameWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(tcp, "RETRY_MAX_S", 0.01)
    streams: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    device = await asyncio.start_server(lambda *stream: streams.put_nowait(stream), "127.0.0.1", 0)
    port = device.sockets[0].getsockname()[1]
    settings = config(connect=f"127.0.0.1:{port}", device="serial:7", open=False)
    async with asyncio.timeout(ANSWER_S), world.listening(TcpDialer, settings) as listener:
        assert isinstance(make_listener(settings, world.shared), TcpDialer)
        for count in (1, 2):
            reader, writer = await streams.get()
            await until(lambda: listener.trouble == "")
            writer.write(b"hello\n")
            assert await reader.readline() == b"OK 1\n"
            way = listener.way("serial", "7")
            assert way is not None
            await way.send(restart())
            assert b"restart" in await reader.readline()
            assert len(world.payloads) == count
            writer.close()
        await until(lambda: listener.counters.connections_total == 3)
        _, writer = await streams.get()
        writer.close()
        device.close()
        await until(lambda: "cannot connect" in listener.trouble)
        assert (listener.place, listener.port, listener.is_listening) == (f"127.0.0.1:{port}", 0, True)


async def test_the_gateway_connects_by_tls_and_knows_whom_to(world: FrameWorld, tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "a"), Authority(tmp_path / "b")
    made = authority.issue("localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.cert, made.key)

    async def device(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        await reader.read()
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        ended.set()

    ended = asyncio.Event()
    server = await asyncio.start_server(device, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    settings = {"connect": f"localhost:{port}", "connect_tls": True, "device": "serial:7"}
    async with world.listening(TcpDialer, config(**settings, connect_ca=str(other.certificate))) as listener:
        await until(lambda: "CERTIFICATE_VERIFY_FAILED" in listener.trouble)
    async with world.listening(TcpDialer, config(**settings, connect_ca=str(authority.certificate))):
        assert await world.came(1) == [b"hello"]
    async with asyncio.timeout(ANSWER_S):
        await ended.wait()
    server.close()
