"""Datagrams, from nc and socat, and from sockets where bytes count."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edge.listeners import udp
from edge.listeners.stream_config import UdpConfig
from edge.listeners.udp import UdpListener
from edge.listeners.way import CommandRefusedError, DeviceAbsentError
from protocols.framing.spec import FramingSpec
from protocols.messages import Origin
from tests.edge.listeners.frame_world import ANSWER_S, FrameWorld, client, restart, until
from tidegate.console import UserError


@pytest.fixture
def world(tmp_path: Path) -> FrameWorld:
    return FrameWorld(tmp_path)


def config(**settings: Any) -> UdpConfig:
    given: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "open": True, "ack": "OK {count}\n"}
    return UdpConfig("udp", "quay", **(given | settings))


class Device:
    """A socket that keeps its port."""

    def __init__(self, listener: UdpListener) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.connect(("127.0.0.1", listener.port))

    def send(self, data: bytes) -> None:
        self._socket.send(data)

    async def next(self) -> bytes:
        async with asyncio.timeout(ANSWER_S):
            return await asyncio.get_running_loop().sock_recv(self._socket, 65_536)

    def close(self) -> None:
        self._socket.close()


@contextlib.asynccontextmanager
async def device(listener: UdpListener) -> AsyncIterator[Device]:
    with contextlib.closing(Device(listener)) as made:
        yield made


async def test_nc_is_answered_once_its_datagram_is_on_disk(world: FrameWorld) -> None:
    world.bus.hold()
    async with world.listening(UdpListener, config()) as listener:
        talk = asyncio.create_task(client("nc", "-u", "-w1", "127.0.0.1", str(listener.port), data=b'{"n":1}'))
        await world.bus.reached(1)
        assert listener.counters.recorded == 0
        world.bus.release()
        assert await talk == b"OK 1\n"
        assert world.payloads == [b'{"n":1}']
        assert world.bus.records[0].origin == Origin("quay", "ip", "127.0.0.1", "", "", "udp")
        assert (listener.kind, listener.place) == ("udp", f"127.0.0.1:{listener.port}")
        assert (listener.counters.connections, listener.counters.recorded) == (1, 1)


async def test_socat_sends_several_frames_in_a_datagram(world: FrameWorld) -> None:
    settings = config(framing=FramingSpec("line", 10), nack="NO {code}\n", device="serial:7")
    async with world.listening(UdpListener, settings) as listener:
        place = f"UDP:127.0.0.1:{listener.port}"
        answer = await client("socat", "-t1", "-", place, data=b"a\nlonger than ten\nb\nhalf")
        assert sorted(answer.splitlines()) == [b"NO oversize", b"OK 1", b"OK 2"]
        assert world.payloads == [b"a", b"b"]
        assert world.bus.records[0].origin.alias == "7"
        assert listener.refusals.counts == {"oversize": 1, "half_frame": 1}
        assert {refused.data for refused in listener.refusals.last} == {b"longer than ten", b"half"}
        assert listener.counters.malformed == 2


async def test_each_port_gets_its_own_answer(world: FrameWorld) -> None:
    settings = config(ack="got it")
    async with (
        world.listening(UdpListener, settings) as listener,
        device(listener) as one,
        device(listener) as two,
    ):
        one.send(b"1")
        two.send(b"2")
        assert (await one.next(), await two.next()) == (b"got it", b"got it")


async def test_a_multicast_group_is_heard(world: FrameWorld) -> None:
    settings = config(host="0.0.0.0", groups=("239.255.7.11",), interface="lo", ack="")
    async with world.listening(UdpListener, settings) as listener:
        place = f"UDP4-DATAGRAM:239.255.7.11:{listener.port},ip-multicast-if=127.0.0.1,ip-multicast-ttl=0"
        await client("socat", "-u", "-", place, data=b"to all")
        assert await world.came(1) == [b"to all"]
        assert listener.place.endswith(" 239.255.7.11")


async def test_what_cannot_be_joined_or_bound_is_named(world: FrameWorld) -> None:
    with pytest.raises(UserError, match=r"cannot join the multicast group 10\.0\.0\.1"):
        await UdpListener(config(groups=("10.0.0.1",)), world.shared).start()
    async with world.listening(UdpListener, config()) as listener:
        with pytest.raises(UserError, match="the port is in use") as error:
            await UdpListener(config(port=listener.port), world.shared).start()
        assert "ss -lunp" in error.value.remedy


async def test_a_command_goes_to_where_the_device_was_last_heard(world: FrameWorld) -> None:
    async with world.listening(UdpListener, config(ack="")) as listener:
        assert listener.way("ip", "127.0.0.1") is None
        async with device(listener) as one, device(listener) as two:
            one.send(b"1")
            await world.came(1)
            two.send(b"2")
            await world.came(2)
            way = listener.way("ip", "127.0.0.1")
            assert way is not None
            assert not way.confirms
            await way.send(restart())
            assert await two.next() == b'{"command":"restart","id":"c1","payload":"now"}'
            two.send(b'{"response":"0d3f5f0e-0a52-4b8e-9a7e-52d4cf5f3d11"}')
            await world.came(3)
            assert world.bus.records[2].origin.codec == "response"
            assert listener.way("serial", "7") is None
            with pytest.raises(DeviceAbsentError, match="too long"):
                await way.send(restart(b"x" * 70_000))
    settings = config(device="serial:7", framing=FramingSpec("cobs", 60), commands="payload", ack="")
    async with world.listening(UdpListener, settings) as listener, device(listener) as one:
        one.send(b"\x02a\x00")
        await world.came(4)
        way = listener.way("serial", "7")
        assert way is not None
        await way.send(restart(b"b"))
        assert await one.next() == b"\x02b\x00"
        with pytest.raises(CommandRefusedError):
            await way.send(restart(b"x" * 61))


async def test_a_flood_of_one_address_is_cut_to_its_rate_and_counted(
    world: FrameWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp, "TICK_S", 1000.0)
    async with world.listening(UdpListener, config(rate_max=5)) as listener, device(listener) as one:
        for number in range(20):
            one.send(b"%d" % number)
        await until(lambda: sum(listener.refusals.counts.values()) == 15)
        assert listener.refusals.counts == {"too_frequent": 15}
        assert listener.refusals.last[0].data == b"5"
        assert await world.came(5) == [b"0", b"1", b"2", b"3", b"4"]


async def test_what_comes_while_nothing_can_be_taken_is_dropped_and_counted(
    world: FrameWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.listeners.collector.WAITING_RECORDS_MAX", 2)
    world.bus.hold()
    async with world.listening(UdpListener, config()) as listener, device(listener) as one:
        for number in range(3):
            one.send(b"%d" % number)
        await until(lambda: world.collector.paused)
        one.send(b"3")
        await until(lambda: listener.counters.refused == {"paused": 1})
        assert world.collector.counters.refused == {"paused": 1}
        world.bus.release()
        assert await one.next() == b"OK 1\n"
        one.send(b"4")
        assert await world.came(4) == [b"0", b"1", b"2", b"4"]


async def test_what_the_kernel_drops_is_counted(world: FrameWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp, "RECEIVE_BUFFER_BYTES", 4096)
    monkeypatch.setattr(udp, "TICK_S", 0.01)
    async with world.listening(UdpListener, config(rate_max=0)) as listener, device(listener) as one:
        for _ in range(100):
            one.send(b"x" * 1000)
        await until(lambda: listener.counters.refused.get("receive_buffer", 0) > 0)
        await until(lambda: listener.counters.recorded + listener.counters.refused["receive_buffer"] == 100)
        assert world.collector.counters.refused == listener.counters.refused


async def test_addresses_are_remembered_up_to_a_limit(world: FrameWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp, "SOURCES_MAX", 2)
    async with world.listening(UdpListener, config(host="0.0.0.0", ack="")) as listener:
        for number in (1, 2, 1, 3):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                one.bind((f"127.0.0.{number}", 0))
                one.sendto(b"x", ("127.0.0.1", listener.port))
                await until(lambda number=number: listener.way("ip", f"127.0.0.{number}") is not None)  # type: ignore[misc]
        assert [listener.way("ip", f"127.0.0.{number}") is not None for number in (1, 2, 3)] == [True, False, True]
        assert listener.counters.connections == 2


async def test_datagrams_of_ipv6(world: FrameWorld) -> None:
    async with world.listening(UdpListener, config(host="::1")) as listener:
        place = f"UDP6:[::1]:{listener.port}"
        assert await client("socat", "-t1", "-", place, data=b"six") == b"OK 1\n"
        assert world.bus.records[0].origin.alias == "::1"
        assert listener.place == f"[::1]:{listener.port}"
