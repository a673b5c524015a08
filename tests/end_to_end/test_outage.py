"""The cloud is away: devices are served all the same, memory stays flat, and the backlog drains when it is back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.end_to_end.site import Site

BACKLOG = 500_000
MIB = 1024 * 1024
GROWTH_MAX = 16 * MIB
"""Between a backlog of a tenth and of all messages: buffers of fixed size fill up in the first tenth."""

EVENTS_MAX = 6
"""Of a device, beside its messages: that it came, went, or was there when the gateway started again, in two fleets."""


@pytest.mark.timeout(600)
async def test_memory_is_flat_over_the_backlog_and_it_drains_with_progress(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        await site.set_up()
        roster = await site.add_devices("plain", 50)
        await site.until(lambda: site.gateway_knows(roster[-1]))
        assert await site.cloud.stop() == 0
        await _buffer(site, roster, BACKLOG // 10)
        early = site.gateway.rss_bytes()
        await _buffer(site, roster, BACKLOG - BACKLOG // 10)
        assert site.gateway.rss_bytes() - early < GROWTH_MAX
        status = await site.gateway_status()
        assert 0 <= status["totals"]["pending"] - BACKLOG <= EVENTS_MAX * len(roster)
        assert status["closed"]

        await site.start_cloud()
        seen: list[tuple[int, float | None]] = []

        async def drained() -> bool:
            now = await site.gateway_status()
            assert now["closed"]
            seen.append((now["totals"]["pending"], now["link"]["drain_s"]))
            return bool(now["totals"]["pending"] == 0)

        await site.until(drained, within_s=240)
        assert any(0 < pending < BACKLOG and drain_s is not None for pending, drain_s in seen), "progress and estimate"
        assert [pending for pending, _ in seen] == sorted((pending for pending, _ in seen), reverse=True)
        assert site.gateway.rss_bytes() - early < GROWTH_MAX
        code, proof = await site.verify("--wait", "240s")
        assert code == 0, proof
        assert proof["holds"]


async def test_a_gateway_that_starts_without_the_cloud_records_at_once(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        await site.set_up()
        roster = await site.add_devices("keyed", 5)
        await site.until(lambda: site.gateway_knows(roster[-1]))
        await site.gateway.stop()
        await site.cloud.stop()
        await site.start_gateway()
        code, fleet = await site.fleet(roster, "--messages", "500", "--rate", "500")
        assert code == 0, fleet
        pending = (await site.gateway_status())["totals"]["pending"]
        assert 0 <= pending - 500 <= EVENTS_MAX * len(roster)
        sent_by = time.time_ns() // 1_000_000
        await site.start_cloud()
        code, proof = await site.verify("--wait", "60s")
        assert code == 0, proof

        async def complete() -> bool:
            until = [(await site.get(f"devices/keyed:serial:{one['name']}"))["complete_until"] for one in roster]
            return all(ms is not None and sent_by <= ms <= time.time_ns() // 1_000_000 for ms in until)

        await site.until(complete)


async def _buffer(site: Site, roster: list[dict[str, object]], messages: int) -> None:
    code, fleet = await site.fleet(
        roster, "--messages", str(messages), "--rate", "10000", "--window", "200", "--buffer", "10000"
    )
    assert code == 0, fleet
    assert fleet["fleet"]["acknowledged"] == messages
