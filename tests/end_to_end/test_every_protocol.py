"""What befalls devices, whatever they speak: after each kind of trouble the ledger closes."""

from __future__ import annotations

import json
from pathlib import Path

from tests.end_to_end.every_protocol import EveryProtocol

DEVICES = dict.fromkeys(("mqtt", "coap", "http", "tcp", "udp", "serial", "modbus"), 2)
SCENARIO = """\
title = "All that befalls devices"
duration = "9s"

[fleet]
rate_each = 5.0

[[event]]
what = "malformed"
at = "1s"
messages = 2

[[event]]
what = "wrong-clock"
at = "1s"
for = "3s"
by = "-2d"

[[event]]
what = "late"
at = "2s"
for = "1s"

[[event]]
what = "unplug"
at = "3500ms"
for = "1s"

[[event]]
what = "brown-out"
at = "5s"
for = "500ms"
share = 0.5

[[event]]
what = "restart"
at = "6s"
for = "500ms"
share = 0.5

[[event]]
what = "duplicates"
at = "8s"
messages = 3
"""


async def test_what_befalls_devices_leaves_nothing_missing_by_any_protocol(tmp_path: Path) -> None:
    async with EveryProtocol(tmp_path, DEVICES) as site:
        await site.set_up()
        roster = await site.add_all()
        await site.until_known(len(roster))
        file, devices, ledger = tmp_path / "all.toml", tmp_path / "roster.json", tmp_path / "ledger"
        file.write_text(SCENARIO)
        devices.write_text(json.dumps(roster))
        played = json.loads(
            await site.command(
                "tidegate-sim", "scenario", file, "--devices", devices, "--ledger", ledger, "--json", "--user", "admin",
                "--project", site.project, "--api", site.url, "--gateway", site.status_url,
            )
        )  # fmt: skip
    assert played["verdict"] == "holds"
    assert not any(one["left_out"] for one in played["happened"])
    by_name = {one["name"]: one for one in played["proof"]["devices"]}
    polled = [by_name.pop(name) for name in site.names("modbus")]
    for name, one in by_name.items():
        assert one["malformed"] == one["rejected"] == 2, f"{name}: what cannot be read is among the rejects"
        assert 20 < one["acknowledged"] <= one["stored"] + one["rejected"], name
    assert all(one["malformed"] == one["acknowledged"] == 0 < one["unpromised_stored"] for one in polled)
    fleet = played["fleet"]
    assert fleet["rebooted"] == len(roster)
    assert 0 < fleet["repeated"] <= 3 * len(by_name)
    assert not fleet["refused"], fleet["refusal"]
