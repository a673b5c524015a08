"""A site that is asked what it made of bad input. Its gateway has the smallest log that there can be,
and refuses what does not fit."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.db.database import Database
from cloud.engines.access import Access
from cloud.engines.postgres import Postgres
from edge.config import LOG_BYTES_MIN
from sync.link.tokens import public_bytes, sign
from sync.log.settings import SEGMENT_BYTES_MIN
from tests.end_to_end.device import Device
from tests.end_to_end.site import Site


class WatchedSite(Site):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        smallest = f"[log]\nmax_bytes = {LOG_BYTES_MIN}\nsegment_bytes = {SEGMENT_BYTES_MIN}\nevict = false\n"
        self.edge_toml.write_text(self.edge_toml.read_text() + smallest)

    async def device(self, network: str, name: str) -> Device:
        """A new one that the gateway knows; not connected."""
        alias = {"network_id": network, "alias_key": "serial", "alias": name}
        body = {"system_id": "site", "blueprint_id": "pump", "name": name, "aliases": [alias], "credential": True}
        before = (await self.gateway_status())["registry"]["devices"]
        made = await self.post("devices", body)

        async def known() -> bool:
            return bool((await self.gateway_status())["registry"]["devices"] > before)

        await self.until(known)
        return Device(self.mqtt_ports[network], name, made["credential"]["password"])

    async def current(self, device: str) -> dict[str, Any]:
        """`device`: network:name."""
        attributes = (await self.get(f"devices/{_alias(device)}/current"))["attributes"]
        return {key: held["value"] for key, held in attributes.items()}

    async def until_current(self, device: str, **expected: Any) -> None:
        async def stored() -> bool:
            return expected.items() <= (await self.current(device)).items()

        await self.until(stored)

    async def history(self, device: str) -> list[dict[str, Any]]:
        """The newest hundred, the newest first."""
        return list((await self.get(f"devices/{_alias(device)}/history"))["items"])

    async def until_stored(self, device: str, promised: list[int]) -> None:
        """Its `seq`s are what was promised, each once; what was refused is not among them."""

        async def stored() -> list[int]:
            path = f"{self.url}/api/v1/devices/{_alias(device)}/history"
            lines = await self.client.get(path, headers={"Accept": "application/x-ndjson"})
            return sorted(json.loads(line)["data"]["seq"] for line in lines.text.splitlines())

        async def all_stored() -> bool:
            return len(await stored()) >= len(promised)

        await self.until(all_stored)
        assert await stored() == promised

    async def gateway_rejects(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.client.get(f"{self.status_url}/rejects")).raise_for_status().json()
        return found

    async def newest_refused(self, user: str) -> dict[str, Any]:
        """What the gateway's /rejects shows of the packets of one user name."""
        refused = (await self.gateway_rejects())["refused"]
        return next(one for one in refused if one["user_name"] == user)

    async def turned_away(self, code: str) -> int:
        return int((await self.gateway_status())["turned_away"].get(code, 0))

    async def enrol_by_hand(self, gateway_id: str, *, signed_ago_s: int = 0) -> tuple[str, str]:
        """A gateway that is no process: its link's address, and a token signed so long ago."""
        made = await self.post("gateways", {"id": gateway_id, "name": gateway_id})
        key = Ed25519PrivateKey.generate()
        body = {"token": made["enrolment"]["token"], "public_key": base64.b64encode(public_bytes(key)).decode()}
        enrolled = await self.post("enrolments", body)
        token = sign(key, gateway_id=gateway_id, project_id="p", now_s=int(time.time()) - signed_ago_s)
        return enrolled["link_url"], token

    @contextlib.asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        """The cloud's, for what a test cannot wait for: hours to pass."""
        access = Access.load(self.folder / "cloud" / "postgresql" / "access.json")
        assert access is not None
        database = await Database.connect(Postgres().url(access))
        try:
            yield database
        finally:
            await database.close()


def _alias(device: str) -> str:
    return device.replace(":", ":serial:")
