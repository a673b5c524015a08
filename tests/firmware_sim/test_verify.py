"""`verify` against an API that answers from memory: it waits as long as it makes sense, and believes nothing."""

from __future__ import annotations

import base64
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
from firmware_sim.proof_words import accounts, columns_of, conclusion, faults
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
        self.tails = 0
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
            return httpx.Response(200, json=gateway_accounting(totals, link=self.link, tails=self.tails))
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


async def prove(
    world: World, ledger: Path, monkeypatch: pytest.MonkeyPatch, looks: int = 5, beside: tuple[Path, ...] = ()
) -> Proof:
    """With a clock that lets it look so many times."""
    monkeypatch.setattr(verify, "LOOK_S", 0)
    ticks = itertools.count()
    async with httpx.AsyncClient(transport=httpx.MockTransport(world.answer)) as client:
        api = CloudApi("http://cloud", client, user="admin", password="x")
        plan = VerifyPlan(ledger, (GATEWAY,), "demo", float(looks), beside)
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


def gap(records: int, oldest_ms: int, newest_ms: int) -> dict[str, Any]:
    return {
        "seq": 1, "gateway_id": "quay-1", "kind": "evicted", "epoch": "5f1c8a526f5e4c8b", "first_seq": 10,
        "end_seq": 10 + records, "records": records, "oldest_time": oldest_ms, "newest_time": newest_ms,
        "noticed_time": newest_ms, "size_bytes": 0,
    }  # fmt: skip


async def test_what_a_gap_accounts_for_is_lost_and_not_missing(
    world: World, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del world.rows["demo:serial:pump-01"][1]
    world.lists["gaps"] = [gap(1, NOW_MS, NOW_MS)]
    proof = await prove(world, ledger, monkeypatch)
    assert proof.holds
    assert (proof.total.stored, proof.total.in_gaps, proof.total.missing) == (2, 1, 0)
    assert ("gaps", "quay-1: evicted 1 in 1 gaps") in accounts(proof)
    assert conclusion(proof) == [
        "✓ nothing missing, nothing doubled, accounting closed; 1 lost, and accounted for by gaps"
    ]


async def test_a_loss_beyond_what_the_gaps_claim_stays_lost(
    world: World, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.rows["demo:serial:pump-01"].clear()
    hour_ms = 3_600_000
    world.lists["gaps"] = [gap(1, NOW_MS, NOW_MS), *(gap(10, NOW_MS - hour_ms, NOW_MS - hour_ms) for _ in range(4))]
    proof = await prove(world, ledger, monkeypatch)
    assert proof.verdict is Outcome.LOST
    assert (proof.total.in_gaps, proof.total.missing) == (1, 2)
    assert faults(proof)[0] == "2 acknowledged messages are not stored, and in no gap"


async def test_what_is_on_its_way_is_not_put_down_to_a_gap(
    world: World, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = world.rows["demo:serial:pump-01"]
    late = [stored.pop(), stored.pop()]
    world.pending = [2]
    world.lists["gaps"] = [gap(5, NOW_MS, NOW_MS)]
    looks = itertools.count(1)
    world.on_look = lambda: stored.append(late.pop()) if next(looks) in (3, 4) else None
    with LedgerWriter(ledger, wall_ms=lambda: NOW_MS):
        proof = await prove(world, ledger, monkeypatch, looks=20)
    assert (proof.total.stored, proof.total.in_gaps) == (3, 0)


async def test_a_gap_that_is_told_later_is_waited_for(
    world: World, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del world.rows["demo:serial:pump-01"][2]
    looks = itertools.count(1)
    world.on_look = lambda: world.lists["gaps"].append(gap(1, NOW_MS, NOW_MS)) if next(looks) == 3 else None
    assert (await prove(world, ledger, monkeypatch, looks=20)).holds


async def test_messages_among_the_rejects_and_in_the_inbox_are_not_missing(
    world: World, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del world.rows["demo:serial:pump-01"][1:]
    mine = {"network_id": "demo", "alias_key": "serial", "alias": "pump-01"}
    payload = base64.b64encode(b'{"boot":41,"seq":2,"temperature":nan}').decode()
    world.lists["rejects"] = [
        *({**mine, "seq": 9, "payload": base64.b64encode(text).decode()} for text in (b"", b"\xff", b'{"seq":3}')),
        {**mine, "seq": 4, "payload": payload},
    ]
    world.lists["inbox"] = [{**mine, "data": {"temperature": 1}}, {**mine, "data": {"boot": 41, "seq": 3}}]
    proof = await prove(world, ledger, monkeypatch)
    assert proof.holds
    assert (proof.total.stored, proof.total.rejected, proof.total.unresolved) == (1, 1, 1)
    columns = columns_of(proof)
    assert (columns["rejected"], columns["unresolved"]) == ("rejected", "unresolved")
    assert "malformed" not in columns


async def test_another_devices_rejects_prove_nothing(
    world: World, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del world.rows["demo:serial:pump-01"][1]
    payload = base64.b64encode(b'{"boot":41,"seq":2,"temperature":nan}').decode()
    other = {"network_id": "demo", "alias_key": "serial", "alias": "pump-02"}
    world.lists["rejects"] = [{**other, "seq": 1, "payload": payload}]
    assert (await prove(world, ledger, monkeypatch)).total.missing == 1


async def test_a_reject_of_a_device_that_its_payload_names_is_found(
    world: World, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del world.rows["demo:serial:pump-01"][1:]
    unnamed = {"network_id": "demo", "alias_key": "serial", "alias": ""}
    texts = (b'{"boot":41,"seq":2,"time":9,"serial":"pump-01","a":nan}', b'{"boot":41,"seq":3,"serial":"pump-02",')
    world.lists["rejects"] = [
        {**unnamed, "seq": seq, "payload": base64.b64encode(text).decode()} for seq, text in enumerate(texts, 1)
    ]
    proof = await prove(world, ledger, monkeypatch)
    assert (proof.total.rejected, proof.total.missing) == (1, 1)


async def test_a_proof_says_of_how_much_nobody_was_promised_anything(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LedgerWriter(tmp_path / "book", wall_ms=lambda: NOW_MS) as book:
        book.count_boots(book.enroll([LedgerDevice("pump-01", "demo", "serial", True, 40, is_answered=False)]))
        for seq in range(1, 6):
            book.sent(0, 41, seq)
    proof = await prove(world, tmp_path / "book", monkeypatch)
    assert proof.holds
    assert conclusion(proof) == [
        "✓ nothing missing, nothing doubled, accounting closed",
        "· of 5 others, which nobody acknowledges (QoS 0, polled units), 3 are stored",
    ]


async def test_a_malformed_message_must_be_among_the_rejects_once_a_packet(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LedgerWriter(tmp_path / "book", wall_ms=lambda: NOW_MS) as book:
        book.count_boots(book.enroll([LedgerDevice("pump-01", "demo", "serial", True, 40)]))
        book.malformed(0, 41, 1)
        book.sent(0, 41, 1)
        book.acknowledged(0, 41, 1)
    world.rows.clear()
    proof = await prove(world, tmp_path / "book", monkeypatch)
    assert proof.total.faults == ("pump-01 boot 41 seq 1: acknowledged, and not among the rejects",)
    payload = base64.b64encode(b'{"boot":41,"seq":1,"temper').decode()
    one = {"seq": 1, "network_id": "demo", "alias_key": "serial", "alias": "pump-01", "payload": payload}
    world.lists["rejects"] = [one]
    proof = await prove(world, tmp_path / "book", monkeypatch)
    assert proof.holds
    assert (proof.total.malformed, proof.total.rejected) == (1, 1)
    world.lists["rejects"] = [{**one, "seq": 2}, one]
    assert (await prove(world, tmp_path / "book", monkeypatch)).total.doubled == 1


async def test_a_reject_that_comes_later_is_waited_for_and_counted_once(
    world: World, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del world.rows["demo:serial:pump-01"][1:]
    mine = {"network_id": "demo", "alias_key": "serial", "alias": "pump-01"}
    looks = itertools.count(1)

    def reject() -> None:
        seq = next(looks)
        if seq in (2, 3):
            payload = base64.b64encode(b'{"boot":41,"seq":%d,"temp' % seq).decode()
            world.lists["rejects"].insert(0, {**mine, "seq": seq, "payload": payload})

    world.on_look = reject
    proof = await prove(world, ledger, monkeypatch, looks=20)
    assert proof.holds
    assert (proof.total.stored, proof.total.rejected, proof.total.doubled) == (1, 2, 0)


async def test_other_fleets_on_the_gateway_may_go_on_sending(
    world: World, ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.pending = [1]
    other = tmp_path / "other"
    with LedgerWriter(other, wall_ms=lambda: NOW_MS):
        assert (await prove(world, ledger, monkeypatch, beside=(other,))).holds
    assert not (await prove(world, ledger, monkeypatch, beside=(other,))).holds


async def test_messages_of_wrong_clocks_are_looked_for_where_they_were_filed(
    world: World, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days_ms = 86_400_000
    with LedgerWriter(ledger, wall_ms=lambda: NOW_MS) as book:
        for time_ms in (NOW_MS - 2 * days_ms, NOW_MS - 2 * days_ms + 1, 5_000, NOW_MS + days_ms):
            book.may_be_filed_under(time_ms)
        book.sent(0, 41, 3)
    await prove(world, ledger, monkeypatch)
    history = next(url for url in world.asked if url.path.endswith("/history"))
    assert int(history.params["from"]) < NOW_MS - 2 * days_ms
    assert int(history.params["from"]) > NOW_MS - 3 * days_ms
    assert int(history.params["to"]) < NOW_MS + days_ms


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


async def test_torn_ends_of_a_gateways_log_are_named_and_part_of_no_equation(
    world: World, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.tails = 2
    proof = await prove(world, ledger, monkeypatch)
    assert proof.holds
    assert "damaged 0 · 2 torn ends · link up" in accounts(proof)[0][1]


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
