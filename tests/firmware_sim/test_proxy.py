"""The link proxy on loopback: each fault does to a connection what its name says, and ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from firmware_sim.faults.control import ControlError, ControlPort, command
from firmware_sim.faults.fault import Direction, Fault, Kind
from firmware_sim.faults.proxy import BUFFER_BYTES_MAX, LinkProxy

pytestmark = pytest.mark.servers


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Site:
    """An echo server behind a proxy."""

    def __init__(self, proxy: LinkProxy, port: int) -> None:
        self.proxy = proxy
        self.port = port
        self.received = bytearray()
        self.echoes = True
        self.connections: list[asyncio.StreamWriter] = []
        self.changed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        try:
            while data := await reader.read(65536):
                self.received += data
                self.changed.set()
                if self.echoes:
                    writer.write(data)
            writer.write(b"bye")
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def connect(self) -> Streams:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def until_received(self, data: bytes) -> None:
        async with asyncio.timeout(5):
            while not self.received.endswith(data):
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    placeholder: list[Site] = []
    server = await asyncio.start_server(lambda r, w: placeholder[0].serve(r, w), "127.0.0.1", 0)
    proxy = LinkProxy("127.0.0.1", server.sockets[0].getsockname()[1])
    placeholder.append(Site(proxy, await proxy.start()))
    yield placeholder[0]
    await proxy.close()
    server.close()
    for writer in placeholder[0].connections:
        writer.close()
    await server.wait_closed()


async def exchange(streams: Streams, data: bytes) -> bytes:
    streams[1].write(data)
    async with asyncio.timeout(5):
        return await streams[0].readexactly(len(data))


async def is_reset(streams: Streams) -> bool:
    async with asyncio.timeout(5):
        try:
            while await streams[0].read(65536):
                pass
        except ConnectionResetError:
            return True
        finally:
            streams[1].close()
    return False


async def says_nothing(streams: Streams, seconds: float = 0.1) -> bool:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(streams[0].read(1), seconds)
        return False
    return True


async def test_it_forwards_both_ways_whatever_the_size(site: Site) -> None:
    streams = await site.connect()
    assert await exchange(streams, b"hello") == b"hello"
    large = bytes(range(256)) * 40_000
    assert await exchange(streams, large) == large
    streams[1].write_eof()
    assert await streams[0].read() == b"bye"
    state = site.proxy.state()
    assert state.bytes_up == 5 + len(large)
    assert state.bytes_down == state.bytes_up + 3
    streams[1].close()


async def test_a_cut_resets_what_is_connected_and_what_connects_and_heals_in_time(site: Site) -> None:
    streams = await site.connect()
    await exchange(streams, b"hello")
    site.proxy.set_fault(Fault(Kind.CUT, seconds=0.3))
    assert await is_reset(streams)
    assert await is_reset(await site.connect())
    assert site.proxy.state().connections == 0
    assert 0 < (site.proxy.state().remaining_s or 0) < 0.301
    await asyncio.sleep(0.35)
    assert site.proxy.fault.kind is Kind.NONE
    streams = await site.connect()
    assert await exchange(streams, b"again") == b"again"
    streams[1].close()


async def test_a_black_hole_swallows_and_what_is_torn_by_it_is_reset_at_its_end(site: Site) -> None:
    streams, untouched = await site.connect(), await site.connect()
    await exchange(streams, b"hello")
    await exchange(untouched, b"there")
    site.proxy.set_fault(Fault(Kind.BLACK_HOLE))
    streams[1].write(b"lost")
    assert await says_nothing(streams)
    fresh = await site.connect()
    fresh[1].write(b"lost too")
    assert await says_nothing(fresh)
    assert site.proxy.state().bytes_swallowed == 12
    site.proxy.set_fault(Fault())
    assert await is_reset(streams)
    assert await is_reset(fresh)
    assert bytes(site.received) == b"hellothere"
    assert await exchange(untouched, b"still") == b"still"
    untouched[1].close()


async def test_one_direction_alone(site: Site) -> None:
    streams = await site.connect()
    await exchange(streams, b"hello")
    site.proxy.set_fault(Fault(Kind.BLACK_HOLE, Direction.DOWN))
    streams[1].write(b"heard")
    await site.until_received(b"heard")
    assert await says_nothing(streams)
    site.proxy.set_fault(Fault())
    assert await is_reset(streams)


async def test_a_stall_loses_nothing(site: Site) -> None:
    streams = await site.connect()
    await exchange(streams, b"hello")
    site.proxy.set_fault(Fault(Kind.STALL))
    streams[1].write(b"waits")
    assert await says_nothing(streams)
    site.proxy.set_fault(Fault())
    async with asyncio.timeout(5):
        assert await streams[0].readexactly(5) == b"waits"
    streams[1].close()


@pytest.mark.parametrize("fault", [Fault(Kind.STALL, Direction.UP), Fault(Kind.DELAY, Direction.UP, delay_ms=10_000)])
async def test_what_waits_is_bounded(site: Site, fault: Fault) -> None:
    site.echoes = False
    streams = await site.connect()
    site.proxy.set_fault(fault)
    data = bytes(1_000_000)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            for _ in range(64):
                streams[1].write(data)
                await streams[1].drain()
    assert streams[1].transport.get_write_buffer_size() > 0  # the sender is held back
    (pair,) = site.proxy._pairs
    assert pair._up._waiting_bytes <= BUFFER_BYTES_MAX + 256 * 1024
    site.proxy.set_fault(Fault(Kind.CUT))
    await is_reset(streams)


async def test_a_delay_delays_and_keeps_the_order(site: Site) -> None:
    streams = await site.connect()
    await exchange(streams, b"hello")
    loop = asyncio.get_running_loop()
    site.proxy.set_fault(Fault(Kind.DELAY, Direction.UP, delay_ms=150))
    began_s = loop.time()
    streams[1].write(b"one")
    await asyncio.sleep(0.05)
    site.proxy.set_fault(Fault(Kind.DELAY, Direction.UP, delay_ms=0))
    streams[1].write(b"two")
    async with asyncio.timeout(5):
        assert await streams[0].readexactly(6) == b"onetwo"
    assert loop.time() - began_s >= 0.149
    streams[1].close()


async def test_a_throttle_gives_on_piece_by_piece_and_all_at_once_when_it_ends(site: Site) -> None:
    site.echoes = False
    streams = await site.connect()
    site.proxy.set_fault(Fault(Kind.THROTTLE, Direction.UP, bytes_per_s=100))
    data = bytes(range(256)) * 8
    streams[1].write(data)
    await site.until_received(data[:4])
    assert len(site.received) < 100
    site.proxy.set_fault(Fault())
    await site.until_received(data)
    assert bytes(site.received) == data
    streams[1].close()


async def test_a_throttle_is_of_one_line_for_all_connections(site: Site) -> None:
    site.echoes = False
    first, second = await site.connect(), await site.connect()
    site.proxy.set_fault(Fault(Kind.THROTTLE, bytes_per_s=100))
    first[1].write(bytes(100))
    second[1].write(bytes(100))
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    async with asyncio.timeout(5):
        while len(site.received) < 40:
            site.changed.clear()
            await site.changed.wait()
    assert len(site.received) <= 4 + 100 * (loop.time() - began_s)
    for streams in (first, second):
        streams[1].close()


@pytest.mark.parametrize(("chance", "ends"), [(0.0, True), (0.25, False)])
async def test_loss_lets_a_connection_stand_for_a_while_or_ends_it(site: Site, chance: float, ends: bool) -> None:
    streams = await site.connect()
    await exchange(streams, b"hello")
    site.proxy.random = lambda: chance
    site.proxy.set_fault(Fault(Kind.LOSS, every_s=0.05))
    if ends:
        assert await is_reset(streams)
        assert await is_reset(await site.connect())
        return
    while not site.proxy.state().losses:
        await asyncio.sleep(0.001)
    streams[1].write(b"waits")
    assert await says_nothing(streams)
    async with asyncio.timeout(5):
        assert await streams[0].readexactly(5) == b"waits"
    streams[1].close()


async def test_flapping_cuts_again_and_again_and_is_whole_in_between(site: Site) -> None:
    site.proxy.set_fault(Fault(Kind.FLAP, every_s=0.04))
    assert await is_reset(await site.connect())
    whole = resets = 0
    async with asyncio.timeout(20):
        while whole < 3 or site.proxy.state().cuts < 10:
            streams = await site.connect()
            try:
                whole += await exchange(streams, b"hello") == b"hello"
                resets += await is_reset(streams)
            except (ConnectionError, asyncio.IncompleteReadError):
                streams[1].close()
    assert resets
    site.proxy.set_fault(Fault())
    cuts = site.proxy.state().cuts
    streams = await site.connect()
    assert await exchange(streams, bytes(1_000_000)) == bytes(1_000_000)
    assert site.proxy.state().cuts == cuts
    streams[1].close()


async def test_another_target_is_for_new_connections(site: Site) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"other")
        writer.close()

    other = await asyncio.start_server(answer, "127.0.0.1", 0)
    streams = await site.connect()
    await exchange(streams, b"hello")
    site.proxy.target = other.sockets[0].getsockname()[:2]
    reader, writer = await site.connect()
    assert await reader.read() == b"other"
    assert await exchange(streams, b"still") == b"still"
    writer.close()
    streams[1].close()
    other.close()


async def test_a_server_that_is_gone_resets_the_client(site: Site) -> None:
    proxy = LinkProxy("127.0.0.1", 1)  # nobody listens on tcpmux
    port = await proxy.start()
    assert await is_reset(await asyncio.open_connection("127.0.0.1", port))
    assert proxy.state().connections == 0
    await proxy.close()


async def test_the_control_port_sets_and_shows_faults_and_survives_nonsense(site: Site) -> None:
    heard: list[Fault] = []
    control = ControlPort(site.proxy, changed=heard.append)
    port = await control.start()
    assert (await command(port)).fault is Kind.NONE
    state = await command(port, Fault(Kind.CUT, seconds=60))
    assert state.fault is Kind.CUT
    assert 59 < (state.remaining_s or 0) < 60.001
    assert site.proxy.fault.kind is Kind.CUT
    for nonsense in (b"hello\n", b'{"fault": {"kind": "fire"}}\n', b'{"fault": {"kind": "cut", "seconds": -1}}\n'):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(nonsense)
        assert b"error" in await reader.readline()
        writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"x" * 100_000)
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
    assert (await command(port, Fault())).fault is Kind.NONE
    assert [fault.kind for fault in heard] == [Kind.CUT, Kind.NONE]
    await control.close()
    with pytest.raises(ControlError, match="does not answer"):
        await command(port)
