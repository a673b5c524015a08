"""HTTP ingest on a real cloud: answered once durable; sending again with an id is safe, whatever dies in between."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx

from tests.end_to_end.engines import kill_engine
from tests.end_to_end.site import Site

MESSAGES = 400


async def test_what_was_answered_is_stored_once_though_everything_is_killed(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        await site.set_up_cloud()
        await site.add_devices("plain", 1)
        sending = asyncio.create_task(_send_all(site))
        await asyncio.sleep(1.0)
        kill_engine(site.folder, "nats-server")
        await asyncio.sleep(1.0)
        kill_engine(site.folder, "postgres")
        await asyncio.sleep(1.0)
        await site.cloud.kill()
        await site.start_cloud()
        await sending

        async def all_stored() -> bool:
            total = (await site.get("accounting"))["total"]
            return bool(total["stored"] == MESSAGES and not total["in_pipeline"] and not total["records_in_pipeline"])

        await site.until(all_stored)
        accounting = await site.get("accounting")
        assert accounting["closed"]
        assert accounting["total"]["accepted"] >= MESSAGES, "what was sent again is a record of its own"
        assert accounting["total"]["repeated"] == accounting["total"]["accepted"] - MESSAGES
        history = await site.get("devices/plain:serial:plain-000/history?last=1h&limit=1000")
        assert sorted(item["data"]["n"] for item in history["items"]) == list(range(MESSAGES))


async def _send_all(site: Site) -> None:
    """One at a time, as a client does that takes its answers seriously: again, with the same id, until it is told."""
    for number in range(MESSAGES):
        body = {"network_id": "plain", "alias": "plain-000", "data": {"n": number}, "id": f"m{number}"}
        while not await _told(site, body):
            await asyncio.sleep(0.05)


async def _told(site: Site, body: dict[str, Any]) -> bool:
    try:
        answer = await site.client.post(f"{site.url}/api/v1/messages", json=body)
    except httpx.TransportError:
        return False
    assert answer.status_code in (200, 503), answer.text
    return answer.status_code == 200
