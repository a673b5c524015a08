"""A codec is broken, a thousand records are rejected, it is mended, they are replayed; the cloud is killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.end_to_end.device import Device
from tests.end_to_end.site import Site

RECORDS = 1000
READING = b"\x00\xd7\x63"


def layout(*fields: dict[str, Any]) -> dict[str, Any]:
    return {"codec": {"codec": "layout", "layout": {"fields": list(fields)}}}


BROKEN = layout({"name": "t", "type": "u32"})
MENDED = layout({"name": "t", "type": "i16", "scale": 0.1, "unit": "Cel"}, {"name": "h", "type": "u8"})


async def test_all_are_stored_and_none_twice(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        await site.set_up()
        (made,) = await site.add_devices("plain", 1)
        await site.until(lambda: site.gateway_knows(made))
        await patch(site, BROKEN)
        async with Device(made["port"], made["name"], made["password"]).connected() as device:
            for _ in range(RECORDS):
                assert await device.publish(READING)
        await site.until(lambda: is_rejected(site, RECORDS))
        (newest, *_) = (await site.get("rejects?limit=1"))["items"]
        assert newest["detail"] == "the payload ends in t (byte 0)"

        assert (await patch(site, MENDED))["rejected_records"] == RECORDS
        number = (await site.post("rejects/replay", {"network_id": "plain"}))["number"]
        await site.until(lambda: has_begun(site, number))
        await site.cloud.kill()
        await site.start_cloud()
        output = await site.command(
            "tidegate-cloud", "rejects", "replay", "--network", "plain", "--json", "--config", site.cloud_toml
        )
        again = json.loads(output)
        assert again["finished_at"]
        first = await site.get(f"rejects/replay/{number}")
        assert (first["finished"], first["failed"], again["failed"]) == (True, 0, 0)
        assert first["decoded"] + again["decoded"] == RECORDS

        await site.until(lambda: is_stored(site, RECORDS))
        account = await site.get("accounting")
        assert account["closed"]
        assert (account["total"]["rejected_records"], account["total"]["repeated"]) == (0, 0)
        history = await site.get(f"devices/plain:serial:{made['name']}/history?limit={RECORDS}")
        assert len({item["id"] for item in history["items"]}) == RECORDS
        assert history["next"] is None
        assert all(item["data"] == {"t": 21.5, "h": 99} for item in history["items"])


async def patch(site: Site, body: dict[str, Any]) -> Any:
    answer = await site.client.patch(f"{site.url}/api/v1/networks/plain", json=body)
    assert answer.is_success, answer.text
    return answer.json()


async def is_rejected(site: Site, records: int) -> bool:
    return bool((await site.get("accounting"))["total"]["rejected_records"] == records)


async def is_stored(site: Site, records: int) -> bool:
    return bool((await site.get("accounting"))["total"]["stored"] == records)


async def has_begun(site: Site, number: int) -> bool:
    return bool((await site.get(f"rejects/replay/{number}"))["decoded"])
