"""`send`, `fleet` and `unplug` as a person runs them, against sockets on loopback."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from click.testing import Result
from typer.testing import CliRunner

from firmware_sim.cli import app
from firmware_sim.devices.roster import WITH_PASSWORD, Protocol, RosterDevice
from firmware_sim.faults.control import ControlPort, command
from firmware_sim.faults.fault import Fault, Kind
from firmware_sim.faults.proxy import LinkProxy
from firmware_sim.fleet import FleetState
from firmware_sim.run_folder import Bench, DemoState, write_state
from tests.firmware_sim.broker import Broker
from tests.firmware_sim.gateway_world import Gateway
from tests.firmware_sim.status import gateway_accounting

pytestmark = pytest.mark.servers


async def tidegate_sim(*words: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, list(words))


@pytest.fixture
def demo(tmp_path: Path) -> DemoState:
    return DemoState(
        api="http://127.0.0.1:8080",
        network_password="net",
        benches={"mqtt": Bench(RosterDevice("bench-01", user="bench-01", password="k3v9"))},
        devices=[RosterDevice("pump-01", password="p1"), RosterDevice("tank-01", password="t1", profile="tank")],
        ledger=str(tmp_path / "ledger"),
        pids={"demo": 1},
    )


async def test_send_sends_what_is_written_and_says_where_to_look(tmp_path: Path, demo: DemoState) -> None:
    async with Broker() as broker:
        demo.mqtt_port = broker.port
        write_state(tmp_path, demo)
        result = await tidegate_sim("send", "bench-01", "temperature=71.5", "note=dry", "--run", str(tmp_path))
        assert result.exit_code == 0, result.output
        assert "acknowledged in" in result.output
        assert "127.0.0.1:8080/api/v1/devices/demo:serial:bench-01/current" in result.output
        assert [one.payload for one in broker.published] == [{"temperature": 71.5, "note": "dry"}]
        assert (broker.connects[0]["user"], broker.connects[0]["password"]) == ("bench-01", "k3v9")
        assert broker.connects[0]["client_id"] != "bench-01"


async def test_send_as_an_unknown_device_uses_the_networks_credential(tmp_path: Path, demo: DemoState) -> None:
    async with Broker() as broker:
        demo.mqtt_port = broker.port
        write_state(tmp_path, demo)
        result = await tidegate_sim("send", "new-01", "t=1", "--network-credential", "--run", str(tmp_path))
        assert result.exit_code == 0, result.output
        assert "inbox" in result.output
        assert (broker.connects[0]["user"], broker.connects[0]["password"]) == ("new-01", "net")


async def test_send_explains_a_refusal_and_a_gateway_that_is_not_there(tmp_path: Path, demo: DemoState) -> None:
    async with Broker(return_code=4) as broker:
        demo.mqtt_port = broker.port
        write_state(tmp_path, demo)
        refused = await tidegate_sim("send", "bench-01", "t=1", "--run", str(tmp_path))
    assert "refused bench-01: wrong user name or password" in str(refused.exception)
    gone = await tidegate_sim("send", "bench-01", "t=1", "--run", str(tmp_path))
    assert f"no gateway at 127.0.0.1:{broker.port}" in str(gone.exception)


@pytest.mark.parametrize("protocol", ["coap", "http", "tcp", "udp"])
async def test_send_speaks_as_the_device_does(protocol: Protocol, tmp_path: Path, demo: DemoState) -> None:
    gateway = Gateway(protocol, tmp_path)
    await gateway.start()
    demo.devices.append(gateway.identity)
    write_state(tmp_path, demo)
    result = await tidegate_sim("send", "pump", "temperature=71.5", "--run", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "acknowledged in" in result.output
    assert [(one["alias"], one["temperature"]) for one in gateway.data] == [("pump", 71.5)]
    by_hand = await tidegate_sim(
        "send", "pump", "temperature=2", "--protocol", protocol, "--port", str(gateway.port), "--json",
        "--password", "wrong", "--run", str(tmp_path / "nowhere"),
    )  # fmt: skip
    if protocol in WITH_PASSWORD:
        assert f"127.0.0.1:{gateway.port} refused pump: 4" in str(by_hand.exception)
    else:
        assert msgspec.json.decode(by_hand.output)["protocol"] == protocol
    await gateway.stop()
    late = await tidegate_sim("send", "pump", "t=1", "--run", str(tmp_path))
    assert "no gateway at" in str(late.exception) or "the gateway did not answer" in str(late.exception)


async def test_send_does_not_take_the_place_of_a_device_that_the_gateway_comes_to(
    tmp_path: Path, demo: DemoState
) -> None:
    demo.devices.append(RosterDevice("s-1", protocol="serial", path=str(tmp_path / "port")))
    write_state(tmp_path, demo)
    result = await tidegate_sim("send", "s-1", "t=1", "--run", str(tmp_path))
    assert "s-1 speaks serial" in str(result.exception)


async def test_unplug_cuts_the_link_for_its_time_and_tells_when_all_has_drained(
    tmp_path: Path, demo: DemoState
) -> None:
    async with Broker() as broker:
        proxy = LinkProxy("127.0.0.1", broker.port)
        await proxy.start()
        faults: list[Fault] = []
        control = ControlPort(proxy, changed=faults.append)
        demo.control_port = await control.start()
        pending = 20

        async def status(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal pending
            is_cut = proxy.fault.kind is Kind.CUT
            pending = pending + 500 if is_cut else max(pending - 700, 0)
            totals = {"logged": 5000, "accepted": 5000 - pending, "pending": pending, "evicted": 0, "damaged": 0}
            body = msgspec.json.encode(gateway_accounting(totals, link="down" if is_cut else "up"))
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
            writer.close()

        server = await asyncio.start_server(status, "127.0.0.1", 0)
        demo.status = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        write_state(tmp_path, demo)
        result = await tidegate_sim("unplug", "1.2s", "--run", str(tmp_path))
        assert result.exit_code == 0, result.output
        assert "unplugged" in result.output
        assert "plugged in · drained" in result.output
        assert [(fault.kind, fault.seconds) for fault in faults] == [(Kind.CUT, 1.2), (Kind.NONE, None)]
        assert proxy.fault.kind is Kind.NONE
        server.close()
        await server.wait_closed()
        await control.close()
        await proxy.close()


async def test_unplug_without_a_demo_says_so(tmp_path: Path) -> None:
    result = await tidegate_sim("unplug", "1s", "--run", str(tmp_path))
    assert "no demo in" in str(result.exception)


async def test_a_second_unplug_is_refused_and_does_not_end_the_first(tmp_path: Path, demo: DemoState) -> None:
    proxy = LinkProxy("127.0.0.1", 1)
    await proxy.start()
    control = ControlPort(proxy)
    demo.control_port = await control.start()
    demo.status = "http://127.0.0.1:1"
    write_state(tmp_path, demo)
    first = Fault(Kind.CUT, seconds=38.0, by="tidegate-sim unplug, process 7")
    await command(demo.control_port, first)
    result = await tidegate_sim("unplug", "60s", "--run", str(tmp_path))
    assert str(result.exception) == "the link is cut for another 38 s already, by tidegate-sim unplug, process 7"
    assert proxy.fault == first
    second = Fault(Kind.CUT, seconds=60.0, by="B")
    assert (await command(demo.control_port, second, replace=True)).by == "B"
    # The end of the one that was replaced ends nothing.
    assert (await command(demo.control_port, Fault(by=first.by), replace=False)).by == "B"
    assert (await command(demo.control_port, Fault(by="B"), replace=False)).fault is Kind.NONE
    await control.close()
    await proxy.close()


async def test_a_fleet_of_the_demos_devices_ends_with_exit_code_0(tmp_path: Path, demo: DemoState) -> None:
    async with Broker() as broker:
        demo.mqtt_port = broker.port
        write_state(tmp_path, demo)
        process = await run_fleet(tmp_path, "--messages", "10", "--rate", "100", "--json", "--state-file", "s.json")
        out, _ = await process.communicate()
        assert process.returncode == 0
        summary = msgspec.json.decode(out)
        assert summary["complete"]
        assert summary["fleet"]["acknowledged"] == len(broker.published) == 10
        assert {one.user for one in broker.published} == {"pump-01", "tank-01"}


async def test_a_fleet_that_was_not_acknowledged_in_time_ends_with_exit_code_1(tmp_path: Path, demo: DemoState) -> None:
    async with Broker(answers=False) as broker:
        demo.mqtt_port = broker.port
        write_state(tmp_path, demo)
        process = await run_fleet(tmp_path, "--messages", "4", "--rate", "100", "--drain", "500ms")
        out, _ = await process.communicate()
        assert process.returncode == 1
        assert "4 unacknowledged" in out.decode()


async def test_a_terminated_fleet_keeps_its_ledger_and_its_state(tmp_path: Path, demo: DemoState) -> None:
    async with Broker() as broker:
        demo.mqtt_port = broker.port
        write_state(tmp_path, demo)
        process = await run_fleet(tmp_path, "--rate", "50", "--state-file", "state.json")
        await broker.until(lambda: len(broker.published) >= 60)
        process.terminate()
        await process.communicate()
        assert process.returncode == 0
        sent = len(broker.published)
        entries = sum(path.stat().st_size for path in (tmp_path / "ledger").glob("*.ledger")) // 16
        assert entries >= 2 * sent  # each message sent and acknowledged, and the times
        state = msgspec.json.decode((tmp_path / "state.json").read_bytes(), type=FleetState)
        assert state.devices == 2
        assert state.acknowledged > 0


async def run_fleet(folder: Path, *words: str) -> asyncio.subprocess.Process:
    import sys

    command = Path(sys.executable).parent / "tidegate-sim"
    return await asyncio.create_subprocess_exec(
        command, "fleet", "--run", folder, *words, cwd=folder, stdout=asyncio.subprocess.PIPE
    )
