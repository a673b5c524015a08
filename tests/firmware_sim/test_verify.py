"""`verify` against an API that answers from memory: it waits as long as it makes sense, and believes nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from firmware_sim import verify
from firmware_sim.cli.verify import EXIT_CODES
from firmware_sim.cloud_api import ApiError, CloudApi, UnreachableError
from firmware_sim.ledger import LedgerDevice, LedgerWriter
from firmware_sim.proof_words import faults
from firmware_sim.verify import Outcome, Proof, Verification, VerifyPlan, source_line
from tests.firmware_sim.status import gateway_accounting

NOW_MS = 1_790_000_000_000
GATEWAY = "http://gateway"
COUNTS = [
    "accepted",
    "decoded_records",
    "rejected_records",
    "dead_records",
    "records_in_pipeline",
    "decoded",
    "stored",
    "repeated",
    "unresolved",
    "rejected",
    "stopped",
    "dead",
    "in_pipeline",
]


class World:
    """A gateway and a cloud that say what they are told to."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.lists: dict[str, list[dict[str, Any]]] = {"gaps": [], "rejects": [], "inbox": []}
        self.pending = [0]
        """One for each look; the last one stays."""
        self.logged = 3
        self.link = "up"
        self.source = dict.fromkeys(COUNTS, 0) | {
            "kind": "gateway", "gateway_id": "quay-1", "closed": True,
            "accepted": 3, "decoded_records": 3, "decoded": 3, "stored": 3,
        }  # fmt: skip
        self.on_look: Callable[[], None] = lambda: None
        self.status = 200
        self.asked: list[httpx.URL] = []
        self.tokens = 0

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url)
        path = request.url.path
        if path == "/accounting":
            self.on_look()
            pending = self.pending.pop(0) if len(self.pending) > 1 else self.pending[0]
            totals = {"logged": self.logged, "pending": pending, "evicted": 0, "damaged": 0}
            totals["accepted"] = 3 - pending
            return httpx.Response(200, json=gateway_accounting(totals, link=self.link))
        if path == "/api/v1/session" and request.method == "POST":
            self.tokens += 1
            return httpx.Response(201, json={"token": f"t{self.tokens}", "expires": "2027-01-01T00:00:00Z"})
        if self.status != 200:
            return httpx.Response(self.status, json={"title": "No", "detail": "not now"})
        if request.headers["Authorization"] != f"Bearer t{self.tokens}":
            return httpx.Response(401, json={"detail": "expired"})
        if path == "/api/v1/session":
            return httpx.Response(200, json={"user": "admin", "admin": True})
        if path == "/api/v1/accounting":
            return httpx.Response(200, json={"project_id": "demo", "sources": [self.source]})
        if (items := self.lists.get(path.removeprefix("/api/v1/"))) is not None:
            return self.page(items, request.url.params)
        name = path.removeprefix("/api/v1/devices/").removesuffix("/history")
        if name not in self.rows:
            return httpx.Response(404, json={"detail": "there is no such device"})
        assert request.headers["Accept"] == "application/x-ndjson"
        return httpx.Response(200, content=b"".join(msgspec.json.encode(row) + b"\n" for row in self.rows[name]))

    def page(self, items: list[dict[str, Any]], asked: httpx.QueryParams) -> httpx.Response:
        """Two at a time, whatever is asked for."""
        start = int(asked.get("cursor", 0))
        following = str(start + 2) if start + 2 < len(items) else None
        return httpx.Response(200, json={"count": 2, "items": items[start : start + 2], "next": following})


def row(boot: int, seq: int) -> dict[str, Any]:
    return {"id": "x", "event_time": NOW_MS, "data": {"boot": boot, "seq": seq, "temperature": 71.5}}


@pytest.fixture
def world() -> World:
    result = World()
    result.rows["demo:serial:pump-01"] = [row(41, 1), row(41, 2), row(41, 3)]
    return result


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    with LedgerWriter(tmp_path, wall_ms=lambda: NOW_MS) as book:
        book.count_boots(book.enroll([LedgerDevice("pump-01", "demo", "serial", True, 40)]))
        for seq in (1, 2, 3):
            book.sent(0, 41, seq)
            book.acknowledged(0, 41, seq)
    return tmp_path


async def prove(world: World, ledger: Path, monkeypatch: pytest.MonkeyPatch, looks: int = 5) -> Proof:
    """With a clock that lets it look so many times."""
    monkeypatch.setattr(verify, "LOOK_S", 0)
    ticks = itertools.count()
    async with httpx.AsyncClient(transport=httpx.MockTransport(world.answer)) as client:
        api = CloudApi("http://cloud", client, user="admin", password="x")
        plan = VerifyPlan(ledger, (GATEWAY,), "demo", float(looks))
        return await Verification(
            plan, api, client, clock=lambda: float(next(ticks)), report=lambda progress: None
        ).run()


async def test_all_stored_and_at_rest_holds(world: World, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proof = await prove(world, ledger, monkeypatch)
    assert proof.holds
    assert (proof.total.acknowledged, proof.total.stored) == (3, 3)
    assert faults(proof) == []
    history = next(url for url in world.asked if url.path.endswith("/history"))
    assert int(history.params["from"]) < NOW_MS < int(history.params["to"])
    assert history.params["project_id"] == "demo"


async def test_a_missing_message_is_found_and_named(
    world: World, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del world.rows["demo:serial:pump-01"][1]
    proof = await prove(world, ledger, monkeypatch)
    assert not proof.holds
    assert faults(proof) == [
        "1 acknowledged messages are not stored, and in no gap",
        "  pump-01 boot 41 seq 2: acknowledged, and not stored",
    ]


async def test_a_doubled_message_is_found(world: World, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world.rows["demo:serial:pump-01"].append(row(41, 2))
    proof = await prove(world, ledger, monkeypatch)
    assert not proof.holds
    assert proof.total.doubled == 1


async def test_a_device_that_the_cloud_does_not_know_has_stored_nothing(
    world: World, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.rows.clear()
    assert (await prove(world, ledger, monkeypatch)).total.missing == 3


async def test_it_waits_until_the_gateway_has_nothing_pending(
    world: World, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = world.rows["demo:serial:pump-01"]
    late = stored.pop()
    world.pending = [1, 1, 0]
    looks = itertools.count(1)
    world.on_look = lambda: stored.append(late) if next(looks) == 3 else None
    proof = await prove(world, ledger, monkeypatch, looks=20)
    assert proof.holds
    assert sum(url.path.endswith("/history") for url in world.asked) == 1


async def test_what_stays_pending_does_not_hold(world: World, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world.pending = [1]
    proof = await prove(world, ledger, monkeypatch)
    assert not proof.holds
    assert "still on its way: pending 1" in faults(proof)[0]
    assert proof.verdict is Outcome.WAITING


async def test_what_waits_at_a_gateway_that_is_cut_off_is_not_called_lost(
    world: World, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del world.rows["demo:serial:pump-01"][1:]
    world.pending, world.link = [2], "down"
    proof = await prove(world, ledger, monkeypatch)
    assert (proof.verdict, EXIT_CODES[proof.verdict]) == (Outcome.WAITING, 3)
    assert faults(proof) == [
        "not proven yet: 2 acknowledged messages wait on the gateway's disk (link down); plug in and repeat"
    ]
    world.pending = [1]
    proof = await prove(world, ledger, monkeypatch)
    assert (proof.verdict, EXIT_CODES[proof.verdict]) == (Outcome.LOST, 1)
    assert faults(proof)[0] == "2 acknowledged messages are not stored, and in no gap"


async def test_what_drains_just_after_the_comparison_was_on_its_way(
    world: World, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del world.rows["demo:serial:pump-01"][2:]
    world.pending = [1, 0]
    proof = await prove(world, ledger, monkeypatch, looks=0)
    assert proof.verdict is Outcome.WAITING
    assert "1 acknowledged messages are on their way" in faults(proof)[0]


async def test_what_is_in_the_clouds_pipeline_is_not_called_lost(
    world: World, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del world.rows["demo:serial:pump-01"][2:]
    world.source |= {"stored": 2, "in_pipeline": 1}
    assert (await prove(world, ledger, monkeypatch)).verdict is Outcome.WAITING


def test_both_equations_of_a_source_can_be_read(world: World) -> None:
    counts = {
        "accepted": 12356, "decoded_records": 12350, "rejected_records": 6,
        "decoded": 12351, "stored": 12350, "unresolved": 1,
    }  # fmt: skip
    assert source_line(world.source | counts) == (
        "quay-1: records accepted 12,356 = decoded 12,350 + rejected 6 + dead 0 + in pipeline 0; "
        "messages decoded 12,351 = stored 12,350 + repeated 0 + unresolved 1 + stopped 0 + dead 0 + in pipeline 0"
    )
    assert "+ rejected 2 + stopped 0" in source_line(world.source | {"rejected": 2})


async def test_while_a_fleet_sends_it_looks_again_for_what_was_acknowledged(
    world: World, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = world.rows["demo:serial:pump-01"]
    late = stored.pop()
    world.pending = [1]
    looks = itertools.count(1)
    world.on_look = lambda: stored.append(late) if next(looks) == 3 else None
    with LedgerWriter(ledger, wall_ms=lambda: NOW_MS):
        proof = await prove(world, ledger, monkeypatch, looks=20)
    assert sum(url.path.endswith("/history") for url in world.asked) == 3
    assert proof.fleet_running
    assert not proof.at_rest
    assert proof.holds


@pytest.mark.parametrize("count", ["accepted", "decoded", "stored", "unresolved"])
async def test_an_accounting_that_does_not_add_up_does_not_hold(
    world: World, ledger: Path, monkeypatch: pytest.MonkeyPatch, count: str
) -> None:
    world.source[count] += 1
    proof = await prove(world, ledger, monkeypatch)
    assert not proof.holds
    assert "accounting does not close: cloud, quay-1" in faults(proof)[0]


async def test_a_gateway_whose_accounting_is_open_does_not_hold(
    world: World, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.logged = 4
    proof = await prove(world, ledger, monkeypatch)
    assert not proof.holds
    assert "accounting does not close: gateway: logged 4" in faults(proof)[0]


async def test_an_expired_session_is_renewed(world: World, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world.pending = [1, 0]
    looks = itertools.count(1)

    def expire() -> None:
        world.tokens += next(looks) == 2

    world.on_look = expire
    assert (await prove(world, ledger, monkeypatch)).holds
    assert world.tokens == 3


async def test_a_cloud_that_is_gone_is_waited_for_and_then_named(
    world: World, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.status = 503
    with pytest.raises(UnreachableError, match="503 not now"):
        await prove(world, ledger, monkeypatch)
    looks = itertools.count(1)
    world.on_look = lambda: setattr(world, "status", 200 if next(looks) > 2 else 503)
    assert (await prove(world, ledger, monkeypatch, looks=30)).holds


async def test_a_refusal_is_not_repeated(world: World, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world.status = 403
    with pytest.raises(ApiError, match="403"):
        await prove(world, ledger, monkeypatch)
