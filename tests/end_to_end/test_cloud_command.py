"""`tidegate-cloud` from its first start on."""

from __future__ import annotations

import json
from pathlib import Path

from cloud.config import JETSTREAM_BYTES_MIN
from protocols.limits import NATS_PAYLOAD_BYTES_MAX
from tests.contract.nats_server import binary, free_port
from tests.end_to_end.site import Process, Site


async def test_the_first_start_says_how_to_get_in(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        await site.start_cloud()
        hint = f"tidegate-cloud user reset admin --config {site.cloud_toml}"
        said = site.cloud.log.read_text()
        assert f"sign in       nobody can yet: {hint}\n" in said

        code, output = await site.try_command("tidegate-cloud", "user", "reset", "eve", "--config", site.cloud_toml)
        assert code == 1
        assert output == "error: no user is called eve\n  try: the first user is called admin\n"

        name, *words = hint.split()
        shown = await site.command(name, *words)
        user, _, password = shown.strip().partition(" / ")
        assert user == "admin"
        answer = await site.client.post(f"{site.url}/api/v1/session", json={"user": user, "password": password})
        assert answer.status_code == 200

        newer = json.loads(await site.command(name, *words, "--json"))["password"]
        answer = await site.client.post(f"{site.url}/api/v1/session", json={"user": user, "password": password})
        assert answer.status_code == 401, "the old one ended"
        answer = await site.client.post(f"{site.url}/api/v1/session", json={"user": user, "password": newer})
        assert answer.status_code == 200

        assert await site.cloud.stop() == 0
        site.cloud.log.write_text("")
        await site.start_cloud()
        assert "sign in" not in site.cloud.log.read_text()


async def test_a_bus_without_room_for_the_topics(tmp_path: Path) -> None:
    port = free_port()
    settings = f'listen: "127.0.0.1:{port}"\nmax_payload: {NATS_PAYLOAD_BYTES_MAX}\n'
    (tmp_path / "nats.conf").write_text(
        f'{settings}jetstream {{ store_dir: "{tmp_path / "store"}", sync_interval: always, max_file_store: 1GB }}\n'
    )
    nats = Process("nats", [binary(), "-c", tmp_path / "nats.conf"], tmp_path / "nats.log")
    async with Site(tmp_path) as site:
        site.cloud_toml.write_text(f'{site.cloud_toml.read_text()}url = "nats://127.0.0.1:{port}"\n')
        await nats.start()
        try:
            code, output = await site.try_command("tidegate-cloud", "run", "--config", site.cloud_toml)
        finally:
            await nats.stop()
    assert code == 1
    assert "error: NATS cannot be used: JetStream does not take topic default-processor: insufficient storage" in output
    assert f"  try: its JetStream needs file storage for {JETSTREAM_BYTES_MIN} bytes of topics" in output
