"""Many gateways at once, and one that was away for long."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from edge.config import LOG_BYTES_MIN, EdgeConfig, LinkConfig, LogConfig, MqttConfig, StatusConfig
from edge.enrolment import enrol
from firmware_sim.faults.fault import Fault, Kind
from sync.log.settings import SEGMENT_BYTES_MIN
from tests.end_to_end.site import Process
from tests.faults.bench import Bench, Rig
from tests.faults.gateways import LightGateway
from tests.faults.publisher import Publisher
from tests.faults.row import Finding, row
from tests.faults.rows_disk import endpoint

GATEWAYS: Final = 200
QUICK_GATEWAYS: Final = 12
PROCESSES: Final = 2
RATE: Final = 1_000
AWAY_S: Final = 40.0
ENROLLING_MAX: Final = 8
UP_S: Final = 150.0

DAYS: Final = 30
DAY_MS: Final = 86_400_000
BACKLOG: Final = 2_500_000
QUICK_BACKLOG: Final = 100_000
BACKLOG_PAYLOAD_BYTES: Final = 1_000
BACKLOG_DRAIN_S: Final = 480.0
"""What has not drained by then is told as waiting."""
MIB: Final = 1024 * 1024


@row(
    "many-return",
    f"{GATEWAYS} gateways return at once",
    f"cloud out of reach for {AWAY_S:.0f} s, then there for all; whole gateways, {PROCESSES} processes",
    limit_s=420,
)
async def many_return(bench: Bench) -> Finding:
    count = QUICK_GATEWAYS if bench.quick else GATEWAYS
    away_s = AWAY_S if not bench.quick else 10.0
    async with bench.rig(devices=0) as rig:
        rig.roster = await rig.site.add_devices("plain", count)
        rig.say(f"enrolling {count} gateways")
        configs = await _enrolled(rig, count)
        gateways = [LightGateway(config, rig.site.client) for config in configs]
        processes = [_process(rig, number, configs[number::PROCESSES]) for number in range(PROCESSES)]
        try:
            for process in processes:
                await process.start()
            await _until_all(
                rig, processes, gateways, lambda status: status["registry"]["devices"] == count, "know the devices"
            )
            rig.roster = [
                device | {"port": gateway.mqtt_port} for device, gateway in zip(rig.roster, gateways, strict=True)
            ]
            rig.proxy.set_fault(Fault(Kind.CUT))
            code, fleet = await rig.site.fleet(rig.roster, "--seconds", f"{away_s:g}s", "--rate", str(RATE))
            assert code == 0, fleet
            connections = rig.proxy.state().accepted
            rig.proxy.set_fault(Fault())
            began_s = time.monotonic()
            await _until_all(rig, processes, gateways, lambda status: status["link"]["state"] == "up", "are back")
            up_s = time.monotonic() - began_s
            await rig.drained(*gateways)
            drained_s = time.monotonic() - began_s
            note = (
                f"all up again after {up_s:.0f} s, drained after {drained_s:.0f} s,"
                f" {rig.proxy.state().accepted - connections} connections"
            )
            return await rig.prove(*gateways, note=note)
        finally:
            for process in processes:
                await process.kill()


async def _enrolled(rig: Rig, count: int) -> list[EdgeConfig]:
    """Each with the smallest log that there can be."""
    places = asyncio.Semaphore(ENROLLING_MAX)

    async def one(number: int) -> EdgeConfig:
        async with places:
            made = await rig.site.post("gateways", {"id": f"light-{number:03}", "name": f"Light {number}"})
            data_dir = rig.site.folder / f"light-{number:03}"
            await asyncio.to_thread(enrol, rig.site.url, made["enrolment"]["token"], data_dir)
            return EdgeConfig(
                data_dir=data_dir,
                log=LogConfig(max_bytes=LOG_BYTES_MIN, segment_bytes=SEGMENT_BYTES_MIN),
                link=LinkConfig(url=rig.link_url),
                mqtt=(MqttConfig("mqtt", "plain", "127.0.0.1", 0),),
                status=StatusConfig(port=0),
            )

    return await asyncio.gather(*(one(number) for number in range(count)))


def _process(rig: Rig, number: int, configs: list[EdgeConfig]) -> Process:
    path = rig.site.folder / f"gateways-{number}.json"
    path.write_bytes(msgspec.json.encode(configs, enc_hook=str))
    return Process("gateways", [sys.executable, "-m", "tests.faults.gateways", path], path.with_suffix(".log"))


async def _until_all(
    rig: Rig, processes: list[Process], gateways: list[LightGateway], holds: Callable[[dict[str, Any]], bool], what: str
) -> None:
    async with asyncio.timeout(UP_S):
        waiting = gateways
        while waiting:
            for process in processes:
                assert process.returncode is None, process.log.read_text()[-3000:]
            rig.say(f"{len(gateways) - len(waiting)} of {len(gateways)} gateways {what}")
            statuses = await asyncio.gather(*(gateway.gateway_status() for gateway in waiting), return_exceptions=True)
            waiting = [
                gateway
                for gateway, status in zip(waiting, statuses, strict=True)
                if isinstance(status, BaseException) or not holds(status)
            ]
            await asyncio.sleep(0.3)


@row(
    "outage-30-days",
    f"an outage of {DAYS} days, and a backlog of gigabytes",
    f"{BACKLOG:,} messages of 1 kB through the bus, with times over {DAYS} days, link cut",
    limit_s=1_200,
)
async def thirty_days(bench: Bench) -> Finding:
    messages = QUICK_BACKLOG if bench.quick else BACKLOG
    async with bench.rig(devices=4, log={"max_bytes": 6_000_000_000}) as rig:
        rig.proxy.set_fault(Fault(Kind.CUT))
        written = await _backlog(rig, messages)
        await rig.site.gateway.stop()
        began_s = time.monotonic()
        await rig.site.start_gateway()
        start_s = time.monotonic() - began_s
        before = await rig.site.gateway_status()
        rss = [rig.site.gateway.rss_bytes()]
        rig.proxy.set_fault(Fault())
        began_s = time.monotonic()
        await rig.drained(within_s=BACKLOG_DRAIN_S)
        drain_s = time.monotonic() - began_s
        rss.append(rig.site.gateway.rss_bytes())
        after = await rig.site.gateway_status()
        drained = after["totals"]["accepted"] - before["totals"]["accepted"]
        note = (
            f"{before['log']['used_bytes'] / 1e9:.2f} GB written at {written:,.0f} messages/s; ready again"
            f" {start_s:.1f} s after a restart; {drained:,} drained in {drain_s:.0f} s ({drained / drain_s:,.0f}/s),"
            f" memory {rss[0] / MIB:.0f} MiB, then {rss[1] / MIB:.0f}"
        )
        return await rig.prove(note=note, may_wait=not bench.quick, margin=f"{24 * (DAYS + 1)}h", within_s=30.0)


async def _backlog(rig: Rig, messages: int) -> float:
    """Fills the log; messages a second."""
    publisher = Publisher(
        rig.roster,
        Path(rig.site.folder / "ledger"),
        payload_bytes=BACKLOG_PAYLOAD_BYTES,
        batch_records=500,
        first_ms=time.time_ns() // 1_000_000 - DAYS * DAY_MS,
        step_ms=DAYS * DAY_MS / messages,
        chance=rig.chance,
    )
    began_s = time.monotonic()
    try:
        await publisher.publish(
            endpoint(rig), messages, give_up=False, progress=lambda recorded: rig.say(f"{recorded:,} messages recorded")
        )
    finally:
        publisher.close()
    return messages / (time.monotonic() - began_s)
