"""`tidegate-cloud import` on a real cloud: each line once, though everything is killed meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.end_to_end.engines import kill_engine
from tests.end_to_end.site import Site

LINES = 20_000
START = 1_772_000_000


async def test_a_file_is_read_once_though_the_cloud_is_killed_and_it_is_run_again(tmp_path: Path) -> None:
    file = tmp_path / "past.csv"
    lines = [f"{START + n // 10},plain-{n % 10:03},{n}" if n % 1000 else f"?,plain-000,{n}" for n in range(LINES)]
    file.write_text("at,serial,n\n" + "\n".join(lines))
    options = ["--network", "plain", "--alias-column", "serial", "--time-column", "at", "--project", "p"]
    async with Site(tmp_path) as site:
        await site.set_up_cloud()
        await site.add_devices("plain", 10)
        command = ["tidegate-cloud", "import", file, *options, "--config", site.cloud_toml]
        code, said = await site.try_command(*command, "--dry-run")  # type: ignore[arg-type]
        assert (code, said) == (1, "of the first lines 1 cannot be read\n")
        begun = await site.command(*command, "--no-wait")  # type: ignore[arg-type]
        assert "begun, as job 1" in begun
        await asyncio.sleep(1.0)
        kill_engine(site.folder, "nats-server")
        await asyncio.sleep(1.0)
        await site.cloud.kill()
        await site.start_cloud()

        async def is_read() -> bool:
            return bool((await site.get("jobs/1"))["state"] == "done")

        await site.until(is_read)
        assert (await site.get("jobs/1"))["result"] == {"records": LINES - 20, "rejected": 20}
        again = await site.command(*command)  # type: ignore[arg-type]
        assert again.startswith("read: 19,980 messages handed on, 20 lines cannot be read")

        async def all_there() -> bool:
            total = (await site.get("accounting"))["total"]
            return bool(total["stored"] + total["repeated"] == 2 * (LINES - 20) and not total["in_pipeline"])

        await site.until(all_there)
        accounting = await site.get("accounting")
        assert accounting["closed"]
        assert accounting["total"]["stored"] == LINES - 20
