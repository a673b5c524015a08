"""Scenarios on the demo, many times as fast as written: whatever is played, the ledger closes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from firmware_sim.scenarios.events import KINDS
from tests.end_to_end.site import COMMANDS
from tests.end_to_end.test_demo import Demo

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAMED = {"night-outage": 25, "flaky-cellular": 25, "bad-clock": 25, "power-cut": 12, "mixed-site": 25}
"""How much faster. The one with the most devices first: the others take of them."""

EVERY_KIND = """\
title = "Every kind of event"
duration = "30s"

[fleet]
devices = 8
rate_each = 3.0
buffer = 60
protocols = ["mqtt", "coap", "http", "tcp"]

[[event]]
what = "late"
at = "1s"
for = "6s"
share = 0.5

[[event]]
what = "wrong-clock"
at = "1s"
for = "10s"
share = 0.5
by = "-40d"

[[event]]
what = "wrong-clock"
at = "2s"
for = "10s"
share = 0.5
unset = true

[[event]]
what = "cut"
at = "2s"
for = "3s"

[[event]]
what = "malformed"
at = "3s"
messages = 2
share = 0.5

[[event]]
what = "delay"
at = "6s"
for = "3s"
latency = "100ms"

[[event]]
what = "duplicates"
at = "9s"
messages = 4

[[event]]
what = "black-hole"
at = "10s"
for = "3s"
direction = "down"

[[event]]
what = "restart"
at = "11s"
for = "500ms"
share = 0.5

[[event]]
what = "stall"
at = "14s"
for = "2s"

[[event]]
what = "unplug"
at = "13s"
for = "2s"
share = 0.5

[[event]]
what = "burst"
at = "14s"
for = "4s"
factor = 3.0

[[event]]
what = "throttle"
at = "16s"
for = "1s"
bytes_per_s = 20000

[[event]]
what = "loss"
at = "17s"
for = "2s"
each = "500ms"

[[event]]
what = "flap"
at = "19s"
for = "2s"
each = "500ms"

[[event]]
what = "pause"
part = "gateway"
at = "17s"
for = "4s"

[[event]]
what = "brown-out"
at = "19s"
for = "1s"
share = 0.5

[[event]]
what = "kill"
part = "gateway"
at = "23s"

[[event]]
what = "kill"
part = "cloud"
at = "26s"
"""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def demo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Demo]:
    async with Demo(tmp_path_factory.mktemp("demo") / "run").running() as running:
        yield running


async def play(demo: Demo, scenario: str | Path, *options: str) -> dict[str, Any]:
    words = [str(COMMANDS / "tidegate-sim"), "scenario", str(scenario), "--run", str(demo.folder), "--json", *options]
    played: dict[str, Any] = json.loads(await demo.type_in(" ".join(words)))
    return played


@pytest.mark.parametrize("name", NAMED)
async def test_a_named_scenario_ends_with_a_closed_ledger(demo: Demo, name: str) -> None:
    played = await play(demo, name, "--speed", str(NAMED[name]))
    assert played["verdict"] == "holds"
    assert not any(one["left_out"] for one in played["happened"])
    total = played["proof"]["total"]
    assert (total["missing"], total["doubled"], total["in_gaps"]) == (0, 0, 0)
    assert total["stored"] + total["rejected"] >= total["acknowledged"] > 1000
    assert (await demo.api("accounting"))["closed"]


async def test_every_kind_of_event_leaves_nothing_missing_and_a_report(demo: Demo, tmp_path: Path) -> None:
    file, report = tmp_path / "every-kind.toml", tmp_path / "report.html"
    file.write_text(EVERY_KIND)
    assert all(f'what = "{kind}"' in EVERY_KIND for kind in KINDS)
    played = await play(demo, file, "--speed", "5", "--report", str(report))
    assert played["verdict"] == "holds"
    assert len(played["happened"]) == EVERY_KIND.count("[[event]]")
    assert not any(one["left_out"] for one in played["happened"])
    total, fleet = played["proof"]["total"], played["fleet"]
    assert total["malformed"] == total["rejected"] == 8, "each malformed payload is among the rejects"
    assert total["stored"] + total["rejected"] >= total["acknowledged"]
    assert 0 < fleet["repeated"] <= 32
    assert fleet["rebooted"] == 8
    assert fleet["dropped"] > 0, "what devices had not delivered when their power failed"
    page = report.read_text()
    assert "Every kind of event" in page
    assert "brown-out of 4 devices" in page


async def test_devices_that_nobody_has_created_are_found_in_the_inbox(demo: Demo, tmp_path: Path) -> None:
    file = tmp_path / "strangers.toml"
    file.write_text(
        'title = "Strangers"\nduration = "3s"\n[fleet]\ndevices = 3\n'
        '[[event]]\nwhat = "malformed"\nat = "1s"\nmessages = 1\n'
    )
    password = json.loads((demo.folder / "demo.json").read_text())["network_password"]
    played = await play(demo, file, "--network-password", password)
    total = played["proof"]["total"]
    assert played["verdict"] == "holds"
    assert total["stored"] == 0
    assert total["rejected"] == 3
    assert total["unresolved"] == total["acknowledged"] - 3 > 0
