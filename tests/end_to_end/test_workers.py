"""Several processes share the pipeline's topics: nothing is doubled, and nothing lost when one is killed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.end_to_end.site import COMMANDS, Process, Site


async def test_two_workers_share_one_stream_and_one_may_be_killed(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        command: list[str | Path] = [COMMANDS / "tidegate-cloud", "run", "--config", site.cloud_toml]
        site.platform.cloud = Process("cloud", [*command, "api", "receiver", "replay"], tmp_path / "cloud.log")
        await site.set_up()
        workers = [
            Process(f"worker {n}", [*command, "processor", "transponder"], tmp_path / f"worker-{n}.log") for n in (1, 2)
        ]
        for worker in workers:
            await worker.start()
        try:
            roster = await site.add_devices("keyed", 10) + await site.add_devices("plain", 10)
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(site.fleet(roster, "--messages", "20000", "--rate", "2000"))
                for _ in range(3):
                    await asyncio.sleep(2.0)
                    await workers[0].kill()
                    await workers[0].start()
                await workers[1].kill()
            code, fleet = sending.result()
            assert code == 0, fleet
            code, proof = await site.verify("--wait", "60s")
            assert code == 0, proof
            total = (await site.get("accounting"))["total"]
            assert (total["stored"], total["repeated"], total["dead"]) == (20_000, 0, 0)
        finally:
            await asyncio.gather(*(worker.stop() for worker in workers))
