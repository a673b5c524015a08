"""Backfill has a process of its own: it may be killed, it ends with its owner, and its work is counted."""

from __future__ import annotations

from pathlib import Path

import psutil

from tests.end_to_end.site import Site, until

MESSAGES = 20_000
KILLS = 3


async def test_a_backlog_drains_while_the_process_that_works_on_it_is_killed(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        await site.set_up()
        roster = await site.add_devices("keyed", 10) + await site.add_devices("plain", 10)
        await site.until(lambda: site.gateway_knows(roster[-1]))
        await site.cloud.stop()
        code, fleet = await site.fleet(roster, "--messages", str(MESSAGES), "--rate", "5000", "--drain", "60s")
        assert code == 0, fleet
        await site.start_cloud()
        for _ in range(KILLS):
            worker = await _worker(site)
            worker.kill()
        code, proof = await site.verify("--wait", "60s")
        assert code == 0, proof
        total = (await site.get("accounting"))["total"]
        assert (total["stored"], total["repeated"], total["dead"]) == (MESSAGES, 0, 0)

        async def counted() -> bool:
            metrics = (await site.client.get(f"{site.url}/metrics")).text
            wanted = ('batches_total{service="processor backfill"}', 'batches_total{service="transponder backfill"}')
            lines = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
            return all(float(lines[f"tidegate_{name}"]) > 0 for name in wanted)

        await until(counted)
        worker = await _worker(site)
        await site.cloud.kill()

        async def ended() -> bool:
            return not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE

        await until(ended)


async def _worker(site: Site) -> psutil.Process:
    """The one that runs now, once there is one."""
    found: list[psutil.Process] = []

    async def runs() -> bool:
        found[:] = [child for child in psutil.Process(site.cloud.pid).children() if _is_worker(child)]
        return bool(found)

    await until(runs)
    return found[0]


def _is_worker(child: psutil.Process) -> bool:
    """And not the one before it, which may end at any moment, or be dead already and not yet waited for."""
    try:
        return child.is_running() and child.cmdline()[-1:] == ["cloud.apart"]
    except psutil.NoSuchProcess:  # a zombie, too
        return False
