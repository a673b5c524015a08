"""Devices of every protocol against the gateway's own listeners: an acknowledgement is taken for what it is, nothing
that was made is forgotten, and the ledger knows of every sending."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge.listeners import serial as serial_listener
from edge.listeners.modbus import listener as modbus_listener
from firmware_sim.devices.carriers import coap
from firmware_sim.devices.device import Device
from firmware_sim.devices.roster import Protocol
from firmware_sim.devices.surroundings import DeviceSettings
from firmware_sim.ledger import LedgerDevice
from protocols.codecs import CodecSpec
from sync.bus.contract import BusRefusedError
from tests.firmware_sim.gateway_world import BOOT, NOW_MS, Gateway, bench, until
from tests.protocols.codecs.decoding import decode

pytestmark = pytest.mark.servers

ANSWERED: tuple[Protocol, ...] = ("mqtt", "coap", "http", "tcp", "udp", "serial")
of_each = pytest.mark.parametrize("protocol", ANSWERED)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serial_listener, "LOOK_S", 0.02)
    monkeypatch.setattr(modbus_listener, "RETRY_FIRST_S", 0.02)
    monkeypatch.setattr(coap, "ACK_TIMEOUT_S", 0.3)


@of_each
async def test_a_message_is_acknowledged_once_it_is_on_disk_and_not_sooner(protocol: Protocol, tmp_path: Path) -> None:
    gateway = Gateway(protocol, tmp_path)
    async with bench(gateway) as site:
        gateway.world.bus.hold()
        await site.up()
        for _ in range(3):
            site.device.measure()
        await gateway.world.bus.reached(1)
        assert site.counts.acknowledged == 0
        gateway.world.bus.release()
        await site.acknowledged(3)
        assert list(dict.fromkeys(gateway.marks)) == [("pump", BOOT, seq) for seq in (1, 2, 3)]
        assert list(site.tally().acknowledged) == [0, 1, 1, 1]
        assert site.device.is_idle


@of_each
async def test_what_the_gateway_does_not_take_is_sent_again(protocol: Protocol, tmp_path: Path) -> None:
    gateway = Gateway(protocol, tmp_path)
    async with bench(gateway, resend_s=0.2) as site:
        gateway.world.bus.failures.append(BusRefusedError("disk", "it fails"))
        await site.up()
        site.device.measure()
        site.device.measure()
        await site.acknowledged(2)
        assert {mark[2] for mark in gateway.marks} == {1, 2}
        tally = site.tally()
        assert list(tally.acknowledged) == [0, 1, 1]
        assert tally.sends[1] == 2
        assert len(gateway.marks) <= sum(tally.sends)


@of_each
async def test_a_gateway_that_comes_later_and_goes_again_gets_everything_once(
    protocol: Protocol, tmp_path: Path
) -> None:
    gateway = Gateway(protocol, tmp_path)
    async with bench(gateway, resend_s=0.5) as site:
        await gateway.stop()
        site.device.measure()
        await gateway.start()
        await site.acknowledged(1)
        await gateway.stop()
        await until(lambda: site.counts.connected == 0 or protocol in ("udp", "coap"))
        site.device.measure()
        await gateway.start()
        await site.acknowledged(2)
        assert list(dict.fromkeys(gateway.marks)) == [("pump", BOOT, 1), ("pump", BOOT, 2)]


@of_each
async def test_a_power_failure_forgets_the_buffer_and_counts_on(protocol: Protocol, tmp_path: Path) -> None:
    gateway = Gateway(protocol, tmp_path)
    async with bench(gateway) as site:
        gateway.world.bus.hold()
        await site.up()
        site.device.measure()
        await gateway.world.bus.reached(1)
        site.device.fail_power(off_s=0.01)
        assert not site.device.measure()
        gateway.world.bus.release()
        await until(lambda: site.counts.connects == 2)
        site.device.measure()
        await site.acknowledged(1)
        assert gateway.marks[-1] == ("pump", BOOT + 1, 1)
        assert list(site.tally().dropped) == [0, 1]


@of_each
async def test_an_unplugged_device_measures_on_and_delivers_later(protocol: Protocol, tmp_path: Path) -> None:
    gateway = Gateway(protocol, tmp_path)
    async with bench(gateway) as site:
        await site.up()
        site.device.unplug(0.3)
        await until(lambda: site.counts.connected == 0)
        site.device.measure()
        site.device.measure()
        assert (len(site.device.outbox), gateway.marks) == (2, [])
        await site.acknowledged(2)
        assert [mark[2] for mark in gateway.marks] == [1, 2]


@of_each
async def test_repeats_late_messages_and_malformed_ones_go_by_every_protocol(
    protocol: Protocol, tmp_path: Path
) -> None:
    gateway = Gateway(protocol, tmp_path)
    async with bench(gateway) as site:
        await site.up()
        site.device.hold(0.2)
        site.device.measure()
        site.device.garble(1)
        site.device.measure()
        assert site.counts.sent == 0
        await site.acknowledged(2)
        assert site.device.repeat(1) == 1
        await until(lambda: len(gateway.world.bus.records) == 3)
        payloads = [record.payload for record in gateway.world.bus.records]
        assert payloads[0].startswith(b'{"boot":41,"seq":1,')
        assert payloads[1] == payloads[2]
        await until(lambda: site.device.is_idle)
        assert (site.counts.acknowledged, site.counts.malformed, site.counts.repeated) == (2, 1, 1)
        assert list(site.tally().sends) == [0, 1, 2]


async def test_a_polled_unit_is_recorded_as_it_measures_and_learns_of_nothing(tmp_path: Path) -> None:
    gateway = Gateway("modbus", tmp_path)
    async with bench(gateway) as site:
        await site.up()
        for seq in (1, 2):
            site.device.measure()
            await until(lambda seq=seq: ("pump", BOOT, seq) in gateway.marks)
        assert site.device.is_idle
        assert (site.counts.acknowledged, site.counts.made, site.counts.unread) == (0, 2, 0)
        first = gateway.data[0]
        assert set(first) == {"alias", "boot", "seq", "level", "inflow", "valve"}
        assert decode(gateway.world.bus.records[0].payload, CodecSpec("registers")).time == [NOW_MS]
        assert first["valve"] in ("open", "closed", "throttled")
        assert first["level"] == round(first["level"], 3)
        await until(lambda: gateway.marks[-1] == ("pump", BOOT, 2))
        tally = site.tally()
        assert not any(tally.acknowledged)
        assert all(gateway.marks.count(("pump", BOOT, seq)) <= tally.sends[seq] for seq in (1, 2))


async def test_what_nobody_read_before_the_next_measurement_is_gone_and_counted(tmp_path: Path) -> None:
    gateway = Gateway("modbus", tmp_path)
    async with bench(gateway) as site:
        await site.up()
        site.device.measure()
        site.device.measure()
        await until(lambda: ("pump", BOOT, 2) in gateway.marks)
        assert site.counts.unread == 1
        assert list(site.tally().dropped) == [0, 1, 0]
        assert ("pump", BOOT, 1) not in gateway.marks


async def test_units_share_a_port_and_one_without_power_is_silent(tmp_path: Path) -> None:
    gateway = Gateway("modbus", tmp_path, timeout_s=0.1, retries=0)
    async with bench(gateway) as site:
        identity = msgspec.structs.replace(gateway.identity, name="other", unit=2)
        site.around.ledger.count_boots(site.around.ledger.enroll([LedgerDevice("other", "quay", "serial", True, 7)]))
        other = Device(identity, 1, {}, DeviceSettings(), site.around)
        other.switch_on()
        try:
            await until(lambda: site.counts.connected == 2)
            site.device.measure()
            await until(lambda: gateway.marks)
            site.device.fail_power(off_s=0.3)
            await until(lambda: "timeout" in gateway.listener.refusals.counts or gateway.listener.trouble)
            assert site.counts.connected == 1
            await until(lambda: site.counts.connected == 2)
            site.device.measure()
            await until(lambda: ("pump", BOOT + 1, 1) in gateway.marks)
        finally:
            other.switch_off()


@pytest.mark.parametrize(("protocol", "said"), [("mqtt", "not authorised"), ("http", "401"), ("coap", "4.01")])
async def test_a_device_that_is_refused_says_why(protocol: Protocol, said: str, tmp_path: Path) -> None:
    gateway = Gateway(protocol, tmp_path)
    async with bench(gateway, identity=msgspec.structs.replace(gateway.identity, password="wrong")) as site:
        site.device.measure()
        await until(lambda: site.counts.refused >= 2)
        assert site.around.refusal.startswith(f"pump: {said}")
        assert site.counts.acknowledged == 0


async def test_a_serial_link_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    gateway = Gateway("serial", tmp_path)
    identity = msgspec.structs.replace(gateway.identity, path=str(tmp_path / "missing" / "port"))
    async with bench(gateway, identity=identity) as site:
        await until(lambda: site.counts.refused)
        assert "missing/port" in site.around.refusal


async def test_a_serial_link_never_takes_the_place_of_a_file_and_goes_with_its_device(tmp_path: Path) -> None:
    gateway = Gateway("serial", tmp_path)
    place = Path(gateway.path)
    place.write_text("precious")
    async with bench(gateway) as site:
        await until(lambda: site.counts.refused)
        assert place.read_text() == "precious"
        place.unlink()
        await site.up()
        assert place.is_symlink()
    assert not place.is_symlink()


class SlowToAnswer(asyncio.DatagramProtocol):
    """Answers what comes again, and then to all places that it came from."""

    def __init__(self) -> None:
        self.places: dict[bytes, list[tuple[str, int]]] = defaultdict(list)
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        places = self.places[data]
        places.append(addr)
        for place in places if len(places) > 1 else ():
            self._transport.sendto(b"OK\n", place)


async def test_udp_sends_again_from_another_port_so_that_no_late_answer_is_taken_for_another(tmp_path: Path) -> None:
    gateway = Gateway("udp", tmp_path)
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(SlowToAnswer, ("127.0.0.1", 0))
    identity = msgspec.structs.replace(gateway.identity, port=transport.get_extra_info("sockname")[1])
    async with bench(gateway, identity=identity, resend_s=0.1) as site:
        site.device.measure()
        site.device.measure()
        await site.acknowledged(2)
        transport.close()
    assert len(server.places) == 2
    assert all(len(places) == len(set(places)) >= 2 for places in server.places.values())


async def test_a_confirmable_message_goes_again_under_its_id_and_is_one_record(tmp_path: Path) -> None:
    gateway = Gateway("coap", tmp_path)
    async with bench(gateway) as site:
        gateway.world.bus.hold()
        site.device.measure()
        await until(lambda: site.counts.resent == 2)
        gateway.world.bus.release()
        await site.acknowledged(1)
        assert gateway.marks == [("pump", BOOT, 1)]
        assert list(site.tally().sends) == [0, 3]
        assert site.counts.connects == 1


async def test_coap_and_http_devices_have_paths(tmp_path: Path) -> None:
    protocols: tuple[Protocol, ...] = ("coap", "http")
    for protocol in protocols:
        gateway = Gateway(protocol, tmp_path / protocol, templates=["sensors/{serial}/up"])
        identity = msgspec.structs.replace(gateway.identity, path="sensors/{name}/up")
        async with bench(gateway, identity=identity) as site:
            site.device.measure()
            await site.acknowledged(1)
            assert gateway.world.bus.records[0].origin.alias == "pump"


async def test_a_tcp_device_without_a_login_names_itself_in_its_payload(tmp_path: Path) -> None:
    gateway = Gateway("tcp", tmp_path, login="", identity="payload")
    async with bench(gateway, identity=msgspec.structs.replace(gateway.identity, login="")) as site:
        site.device.measure()
        await site.acknowledged(1)
        assert gateway.data[0]["serial"] == "pump"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"OK 2\n", "'OK 2' is not the answer to frame 1"),
        (b"OK 1\nOK 2\n", "more frames are acknowledged than were sent"),
        (b"NO disk\n", "neither OK nor a command"),
    ],
)
async def test_an_answer_that_fits_no_frame_ends_the_connection_and_acknowledges_nothing_more(
    said: bytes, why: str, tmp_path: Path
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"ID pump\n"
        await reader.readline()
        writer.write(said)
        await reader.read()
        writer.close()

    gateway = Gateway("tcp", tmp_path)
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    identity = msgspec.structs.replace(gateway.identity, port=server.sockets[0].getsockname()[1])
    async with server, bench(gateway, identity=identity) as site:
        site.device.measure()
        await until(lambda: site.counts.refused)
        assert why in site.around.refusal
        assert site.counts.acknowledged <= 1


@pytest.mark.parametrize("protocol", ["coap", "tcp", "udp", "serial"])  # a session of MQTT brings nothing twice
async def test_a_command_is_run_once_and_answered_each_time_it_comes(protocol: Protocol, tmp_path: Path) -> None:
    command_id = "0198c2a0-0000-7000-8000-000000000001"
    settings = {"device": "serial:pump"} if protocol == "udp" else {}
    gateway = Gateway(protocol, tmp_path, **settings)
    async with bench(gateway, obeys=True) as site:
        site.device.measure()
        await site.acknowledged(1)
        await gateway.tells("reboot", command_id)
        await until(lambda: len(gateway.answers) == 1)
        site.device.measure()
        await gateway.tells("reboot", command_id)
        await until(lambda: len(gateway.answers) == 2)
        await site.acknowledged(2)
        assert (site.device.orders.ran, site.device.orders.again) == (1, 1)
        await until(lambda: not site.device.orders.unacknowledged())
        assert all(one["ok"] and one["did"] == "reboot" and command_id in str(one) for one in gateway.answers)
        assert [mark[2] for mark in gateway.marks] == [1, 2]


@pytest.mark.parametrize("protocol", ["mqtt", "coap", "tcp", "serial"])
async def test_an_answer_that_the_gateway_did_not_take_is_sent_again(protocol: Protocol, tmp_path: Path) -> None:
    command_id = "0198c2a0-0000-7000-8000-000000000002"
    gateway = Gateway(protocol, tmp_path)
    async with bench(gateway, obeys=True) as site:
        await site.up()
        gateway.world.bus.failures.append(BusRefusedError("disk", "it fails"))
        await gateway.tells("reboot", command_id)
        await until(lambda: site.device.orders.ran and not site.device.orders.unacknowledged())
        assert len(gateway.answers) >= 2
        assert site.device.orders.ran == 1
