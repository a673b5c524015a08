"""The contract of the pipeline's store (cloud/services/store.py), on every implementation of it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import msgspec
import pytest

from cloud.model.claim import Claim
from cloud.model.command import Answer, Standing
from cloud.model.output import Output, Unsent
from cloud.model.presence import Seen
from cloud.model.rejected import RejectFilter
from cloud.services.store import Transaction
from protocols.ids import record_message_id
from protocols.messages import Anchor, Clock, ClockState, CommandState, Gap, GapKind, Lane
from protocols.shipment import HISTORY_ONLY, KEYED, MessageBatch, Misfit, Reject, Run, Target
from tests.contract.stores import (
    ALIAS_KEY,
    DEADLINE_S,
    NETWORK,
    DeadLetter,
    FailedError,
    Held,
    Premises,
    take,
    waits,
)

pytest_plugins = ("tests.contract.postgres", "tests.contract.store_fixtures")

NOW = 1_770_000_000_000
EPOCH = 4711


def batch(source_id: int, targets: Sequence[Target], rows: Sequence[tuple[int, int, bytes]]) -> MessageBatch:
    """Rows of (target, event time, data), one record each, without a message key."""
    return MessageBatch(
        [Run(source_id, EPOCH, 0, len(rows))],
        list(targets),
        b"".join(record_message_id(EPOCH, seq) for seq in range(len(rows))),
        list(range(len(rows))),
        [0] * len(rows),
        [target for target, _, _ in rows],
        [0] * len(rows),
        [None] * len(rows),
        [NOW] * len(rows),
        [event_time for _, event_time, _ in rows],
        [data for _, _, data in rows],
        [b"raw " + data for _, _, data in rows],
        [],
        [],
    )


def target(device_id: int, alias: str, project_id: str = "p") -> Target:
    return Target(project_id, NETWORK, ALIAS_KEY, alias, device_id, "b", "s", {}, 1)


async def test_what_fails_leaves_nothing(premises: Premises) -> None:
    source = await premises.add_project("p")
    device = await premises.add_device("p", "a")
    made = batch(source, [target(device, "a"), target(0, "x")], [(0, NOW, b'{"t":1}'), (1, NOW, b"{}")])

    async def work(tx: Transaction) -> None:
        await take("h", Run(source, EPOCH, 0, 5), decoded=5)(tx)
        await tx.store(made, [0])
        await tx.update_current(made, [0])
        await tx.add_unresolved(made, [1])
        await tx.add_rejects("p", [(made.runs[0], 0, Reject(0, "c", "d", NETWORK, ALIAS_KEY, "a", "t", NOW, b"?"))])
        await tx.add_dead_letter(project_id="p", hop="h", topic="t", runs=made.runs, detail="d", data=b"?")
        await tx.keep_anchors(source, [Anchor(7, 1000, NOW, 20, "kernel")])
        await tx.add_gaps(source, [Gap(EPOCH, 10, 20, GapKind.EVICTED, 0, 0, NOW)])
        raise FailedError

    with pytest.raises(FailedError):
        await premises.store.run(work)
    assert await premises.history("p", device) == []
    assert await premises.current("p", device) == []
    assert await premises.inbox("p") == []
    assert await premises.rejects("p") == []
    assert await premises.dead_letters("p") == []
    assert await premises.fates("h", source, EPOCH) == {}
    assert await premises.store.run(lambda tx: tx.anchors(source, {7})) == {}
    assert await premises.store.run(lambda tx: tx.gaps(source, EPOCH, 0, 100)) == []
    claim = await premises.store.run(take("h", Run(source, EPOCH, 0, 5)))
    assert claim.complete


async def test_run_gives_what_the_work_gives(premises: Premises) -> None:
    async def work(tx: Transaction) -> str:
        return "this"

    assert await premises.store.run(work) == "this"


async def test_outputs_are_kept_by_the_transaction_that_decides_them(premises: Premises) -> None:
    async def work(tx: Transaction) -> list[int]:
        first = await tx.add_unsent("h", Lane.LIVE, [Output("writer", b"1"), Output("reason", b"2")])
        return first + await tx.add_unsent("h", Lane.BACKFILL, [Output("writer", b"3")])

    async def fails(tx: Transaction) -> None:
        await work(tx)
        raise FailedError

    with pytest.raises(FailedError):
        await premises.store.run(fails)
    assert await premises.store.run(lambda tx: tx.unsent("h", 10)) == []
    numbers = await premises.store.run(work)
    assert numbers == sorted(set(numbers))
    await premises.store.run(lambda tx: tx.add_unsent("other", Lane.LIVE, [Output("writer", b"4")]))
    expected = [
        Unsent(numbers[0], Lane.LIVE, Output("writer", b"1")),
        Unsent(numbers[1], Lane.LIVE, Output("reason", b"2")),
        Unsent(numbers[2], Lane.BACKFILL, Output("writer", b"3")),
    ]
    assert await premises.store.run(lambda tx: tx.unsent("h", 10)) == expected
    assert await premises.store.run(lambda tx: tx.unsent("h", 2)) == expected[:2]
    await premises.store.run(lambda tx: tx.remove_unsent([numbers[0], numbers[2]]))
    await premises.store.run(lambda tx: tx.remove_unsent([numbers[0]]))
    assert await premises.store.run(lambda tx: tx.unsent("h", 10)) == expected[1:2]


async def test_a_hop_claims_each_record_once(premises: Premises) -> None:
    source = await premises.add_project("p")
    first = await premises.store.run(take("h", Run(source, EPOCH, 10, 10), decoded=12, rejected_records=1))
    assert first.complete
    assert first.parts == [Run(source, EPOCH, 10, 10)]
    runs = [Run(source, EPOCH, 5, 10), Run(source, EPOCH, 0, 8), Run(source, EPOCH, 12, 3), Run(source, EPOCH, 18, 4)]
    second = await premises.store.run(take("h", *runs, decoded=-2))
    assert second.runs == [[Run(source, EPOCH, 5, 5)], [Run(source, EPOCH, 0, 5)], [], [Run(source, EPOCH, 20, 2)]]
    assert not second.complete
    assert await premises.fates("h", source, EPOCH) == {"decoded": 10, "rejected_records": 1}
    for other in (take("other", *runs), take("h", Run(source, EPOCH + 1, 0, 22))):
        assert (await premises.store.run(other)).runs[0] != [], "another hop, another epoch"
    third = await premises.store.run(take("h", Run(source, EPOCH, 0, 30)))
    assert third.parts == [Run(source, EPOCH, 22, 8)]
    assert list(third.done[source, EPOCH]) == [(0, 22)]


async def test_a_transaction_sees_what_it_has_settled(premises: Premises) -> None:
    source = await premises.add_project("p")

    async def work(tx: Transaction) -> Claim:
        await take("h", Run(source, EPOCH, 0, 5))(tx)
        await take("h", Run(source, EPOCH, 7, 1))(tx)
        return await tx.claim("h", [Run(source, EPOCH, 0, 0), Run(source, EPOCH, 3, 6)])

    claim = await premises.store.run(work)
    assert claim.parts == [Run(source, EPOCH, 5, 2), Run(source, EPOCH, 8, 1)]
    assert claim.done[source, EPOCH].end == 8


async def test_what_is_released_can_be_claimed_again(premises: Premises) -> None:
    source = await premises.add_project("p")
    await premises.store.run(take("h", Run(source, EPOCH, 0, 10), Run(source, EPOCH, 20, 10), evicted=20))

    async def give_back(tx: Transaction) -> list[list[Run]]:
        claim = await tx.claim("h", [Run(source, EPOCH, 0, 0)])
        parts = [claim.release(run) for run in (Run(source, EPOCH, 5, 18), Run(source, EPOCH, 7, 20))]
        claim.count(source, EPOCH, "evicted", -sum(part.count for part in itertools.chain(*parts)))
        await tx.settle(claim)
        return parts

    parts = await premises.store.run(give_back)
    assert parts == [[Run(source, EPOCH, 5, 5), Run(source, EPOCH, 20, 3)], [Run(source, EPOCH, 23, 4)]]
    assert await premises.fates("h", source, EPOCH) == {"evicted": 8}
    again = await premises.store.run(take("h", Run(source, EPOCH, 0, 30)))
    assert again.parts == [Run(source, EPOCH, 5, 22)]


async def test_anchors_are_kept_once_and_for_good(premises: Premises) -> None:
    p, q = await premises.add_project("p"), await premises.add_project("q")
    first, second = Anchor(7, 1000, NOW, 20, "kernel"), Anchor(7, 90_000, NOW + 89_001, 5, "cloud")
    await premises.store.run(lambda tx: tx.keep_anchors(p, [second, first, Anchor(8, 5, NOW, 1, "cloud")]))
    await premises.store.run(lambda tx: tx.keep_anchors(p, [Anchor(7, 1000, NOW + 5, 1, "cloud"), second]))
    await premises.store.run(lambda tx: tx.keep_anchors(q, [Anchor(7, 3, NOW, 2, "cloud")]))
    found = await premises.store.run(lambda tx: tx.anchors(p, {7, 9}))
    assert found == {7: [first, second]}


async def test_gaps_are_found_by_their_records(premises: Premises) -> None:
    p, q = await premises.add_project("p"), await premises.add_project("q")
    evicted = Gap(EPOCH, 10, 20, GapKind.EVICTED, NOW - 9, NOW - 5, NOW)
    tail = Gap(EPOCH, 30, 30, GapKind.TAIL, 0, 0, NOW, 512)
    damaged = Gap(EPOCH, 30, 31, GapKind.DAMAGED, NOW - 4, NOW - 3, NOW)
    await premises.store.run(lambda tx: tx.add_gaps(p, [damaged, tail, evicted]))
    await premises.store.run(lambda tx: tx.add_gaps(q, [evicted]))

    async def found(first_seq: int, end_seq: int, epoch: int = EPOCH) -> list[Gap]:
        return await premises.store.run(lambda tx: tx.gaps(p, epoch, first_seq, end_seq))

    assert await found(0, 100) == [evicted, tail, damaged]
    assert await found(0, 100, EPOCH + 1) == []
    assert await found(0, 10) == await found(20, 29) == []
    assert await found(19, 21) == [evicted]
    assert await found(21, 30) == await found(30, 30) == [tail]
    assert await found(30, 31) == [tail, damaged]
    await premises.store.run(lambda tx: tx.remove_gaps(p, [tail, evicted]))
    assert await found(0, 100) == [damaged]
    assert await premises.store.run(lambda tx: tx.gaps(q, EPOCH, 0, 100)) == [evicted], "of another source"


@pytest.mark.parametrize("commits", [True, False])
async def test_a_claim_waits_for_the_one_before(premises: Premises, commits: bool) -> None:
    """Also where the hop has never seen the epoch."""
    source = await premises.add_project("p")
    run = Run(source, EPOCH, 0, 5)
    holder = await Held(premises, take("h", run)).worked()
    second = asyncio.ensure_future(premises.store.run(take("h", run)))
    assert await waits(second)
    async with asyncio.timeout(DEADLINE_S):
        await premises.store.run(take("other", run))
        await premises.store.run(take("h", Run(source, EPOCH + 1, 0, 5)))
        await (holder.commit() if commits else holder.fail())
        assert (await second).parts == ([] if commits else [run])


@pytest.mark.parametrize("commits", [True, False])
async def test_of_two_that_claim_the_same_without_holding_it_one_does_it(premises: Premises, commits: bool) -> None:
    """Also where the hop has never seen the epoch. What they do meanwhile does not make them wait."""
    source = await premises.add_project("p")
    run, other = Run(source, EPOCH, 0, 5), Run(source, EPOCH, 5, 5)
    claims: list[Claim] = []
    went_on = asyncio.Event()

    async def work(tx: Transaction) -> Claim:
        claim = await tx.claim("h", [run, other], held=False)
        claims.append(claim)
        claim.count(source, EPOCH, "decoded", sum(part.count for part in claim.parts))
        went_on.set()
        await tx.settle(claim)
        return claim

    holder = await Held(premises, take("h", run, decoded=5)).worked()
    second = asyncio.ensure_future(premises.store.run(work))
    async with asyncio.timeout(DEADLINE_S):
        await went_on.wait()
        assert await waits(second), "for the one that settled first to end"
        await (holder.commit() if commits else holder.fail())
        assert (await second).parts == ([other] if commits else [run, other])
    assert claims[0].complete
    assert await premises.fates("h", source, EPOCH) == {"decoded": 10}


async def test_lanes_of_a_hop_work_side_by_side(premises: Premises) -> None:
    source = await premises.add_project("p")
    go_on = asyncio.Event()

    async def slow(tx: Transaction) -> None:
        claim = await tx.claim("h", [Run(source, EPOCH, 0, 5)], held=False)
        await go_on.wait()
        await tx.settle(claim)

    waiting = asyncio.ensure_future(premises.store.run(slow))
    async with asyncio.timeout(DEADLINE_S):
        await premises.store.run(take("h", Run(source, EPOCH, 5, 5)))
        go_on.set()
        await waiting
    assert (await premises.store.run(take("h", Run(source, EPOCH, 0, 12)))).parts == [Run(source, EPOCH, 10, 2)]


async def test_claims_of_many_epochs_do_not_block_each_other(premises: Premises) -> None:
    sources = [await premises.add_project(name) for name in ("p", "q", "r")]
    runs = [Run(source, epoch, 0, 3) for source in sources for epoch in (1, 2, 3)]

    async def work(tx: Transaction) -> int:
        return len((await take("h", *runs)(tx)).parts)

    async def backwards(tx: Transaction) -> int:
        return len((await take("h", *reversed(runs))(tx)).parts)

    async with asyncio.timeout(DEADLINE_S):
        taken = await asyncio.gather(*(premises.store.run(one) for one in (work, backwards) * 5))
    assert sum(taken) == len(runs)


async def test_transactions_that_wait_for_each_other_both_come_through(premises: Premises) -> None:
    source = await premises.add_project("p")
    first_steps = [asyncio.Event(), asyncio.Event()]
    attempts = 0

    async def work(tx: Transaction, mine: int) -> None:
        nonlocal attempts
        attempts += 1
        await take("h", Run(source, mine, 0, 1), decoded=1)(tx)
        first_steps[mine].set()
        await first_steps[1 - mine].wait()
        await take("h", Run(source, 1 - mine, 1, 1), stored=1)(tx)

    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(*(premises.store.run(lambda tx, mine=mine: work(tx, mine)) for mine in (0, 1)))
    assert attempts == 3
    for epoch in (0, 1):
        assert await premises.fates("h", source, epoch) == {"decoded": 1, "stored": 1}


async def test_projects_of_sources(premises: Premises) -> None:
    p, q = await premises.add_project("p"), await premises.add_project("q")
    found = await premises.store.run(lambda tx: tx.projects([q, p, 999_999_999]))
    assert found == {p: "p", q: "q"}


async def test_a_held_revision_stays_the_newest(premises: Premises) -> None:
    await premises.add_project("p")
    before = await premises.store.run(lambda tx: tx.newest_revision("p", held=False))
    holders = [
        await Held(premises, lambda tx: tx.newest_revision("p", held=True)).worked() for _ in range(2)
    ]  # they do not wait for each other
    change = asyncio.ensure_future(premises.add_device("p", "a"))
    assert await waits(change)
    assert await premises.store.run(lambda tx: tx.newest_revision("p", held=False)) == before
    await holders[0].commit()
    assert await waits(change)
    await holders[1].fail()
    async with asyncio.timeout(DEADLINE_S):
        await change
    assert await premises.store.run(lambda tx: tx.newest_revision("p", held=True)) == before + 1


async def test_the_inbox_keeps_what_came(premises: Premises) -> None:
    source = await premises.add_project("p")
    made = batch(source, [target(0, "x")], [(0, NOW - 5, b'{"t":1}'), (0, NOW, b'{"t":2}')])
    made.time_error_ms.extend([None, 17])
    await premises.store.run(lambda tx: tx.add_unresolved(made, [1]))
    (row,) = await premises.inbox("p")
    assert (row.source_id, row.network_id, row.alias_key, row.alias) == (source, NETWORK, ALIAS_KEY, "x")
    assert (row.id, row.time, row.received_time, row.event_time) == (record_message_id(EPOCH, 1), None, NOW, NOW)
    assert (row.flags, row.data, row.payload, row.replay_seq) == (0, b'{"t":2}', b'raw {"t":2}', None)
    assert row.time_error_ms == 17


async def test_messages_are_replayable_once_their_device_exists(premises: Premises) -> None:
    p, q = await premises.add_project("p"), await premises.add_project("q")
    rows = [(place % 2, NOW, b"{}") for place in range(6)]
    await premises.store.run(
        lambda tx: tx.add_unresolved(batch(q, [target(0, "x", "q"), target(0, "y", "q")], rows), range(6))
    )
    await premises.store.run(lambda tx: tx.add_unresolved(batch(p, [target(0, "x"), target(0, "y")], rows), range(6)))
    assert await premises.store.run(lambda tx: tx.replayable(100)) == []
    await premises.add_device("p", "x")
    await premises.add_device("q", "y")
    of_p = sorted(row.seq for row in await premises.inbox("p") if row.alias == "x")
    of_q = sorted(row.seq for row in await premises.inbox("q") if row.alias == "y")
    wanted = sorted([(p, seq) for seq in of_p] + [(q, seq) for seq in of_q])
    assert await premises.store.run(lambda tx: tx.replayable(100)) == wanted
    holder = await Held(premises, lambda tx: tx.replayable(2)).worked()
    async with asyncio.timeout(DEADLINE_S):
        assert await premises.store.run(lambda tx: tx.replayable(2)) == wanted[2:4], "others' are passed over"
    await holder.fail()
    assert await premises.store.run(lambda tx: tx.replayable(2)) == wanted[:2]


async def test_numbered_messages_wait_in_order_until_they_are_gone_or_put_back(premises: Premises) -> None:
    source = await premises.add_project("p")
    await premises.add_device("p", "x")
    made = batch(source, [target(0, "x")], [(0, NOW, b"{}")] * 4)
    await premises.store.run(lambda tx: tx.add_unresolved(made, range(4)))
    seqs = sorted(row.seq for row in await premises.inbox("p"))
    assert await premises.store.run(lambda tx: tx.numbered(10)) == []
    await premises.store.run(lambda tx: tx.number([(seqs[2], 0), (seqs[0], 1), (seqs[3], 2)]))
    found = await premises.store.run(lambda tx: tx.numbered(2))
    assert [(project, row.seq, row.replay_seq) for project, row in found] == [("p", seqs[2], 0), ("p", seqs[0], 1)]
    assert await premises.store.run(lambda tx: tx.replayable(10)) == [(source, seqs[1])]
    await premises.store.run(lambda tx: tx.put_back([seqs[2]]))
    await premises.store.run(lambda tx: tx.remove([seqs[0]]))
    assert [row.seq for _, row in await premises.store.run(lambda tx: tx.numbered(10))] == [seqs[3]]
    assert [seq for _, seq in await premises.store.run(lambda tx: tx.replayable(10))] == [seqs[1], seqs[2]]
    await premises.remove_device("p", "x")
    assert await premises.store.run(lambda tx: tx.replayable(10)) == []
    assert len(await premises.store.run(lambda tx: tx.numbered(10))) == 1, "that is for the replay to find out"


async def test_history_has_one_row_a_message_as_it_was(premises: Premises) -> None:
    source = await premises.add_project("p")
    device = await premises.add_device("p", "a")
    made = batch(source, [target(device, "a")], [(0, NOW + 1, b'{"t": 1}'), (0, NOW - 1, b'{"t": 2}'), (0, NOW, b"{}")])
    made.time[0] = 5
    made.flags[0] = 2
    made.time_error_ms.extend([None, 17, None])
    await premises.store.run(lambda tx: tx.ensure_partitions(NOW))
    assert await premises.store.run(lambda tx: tx.store(made, [0, 1])) == [0, 1]
    older, newer = await premises.history("p", device)
    assert (older.event_time, older.id, older.time) == (NOW - 1, record_message_id(EPOCH, 1), None)
    assert (newer.event_time, newer.received_time, newer.time, newer.flags) == (NOW + 1, NOW, 5, 2)
    assert (older.time_error_ms, newer.time_error_ms) == (17, None)
    assert newer.data.replace(b" ", b"") == b'{"t":1}'


def keyed(made: MessageBatch) -> MessageBatch:
    made.flags[:] = [KEYED] * len(made)
    return made


async def test_a_message_key_is_stored_once(premises: Premises) -> None:
    source = await premises.add_project("p")
    device = await premises.add_device("p", "a")
    made = keyed(batch(source, [target(device, "a")], [(0, NOW, b'{"n":1}'), (0, NOW, b'{"n":2}')]))
    assert await premises.store.run(lambda tx: tx.store(made, [1])) == [1]
    later = keyed(batch(source, [target(device, "a")], [(0, NOW + 5, b'{"n":3}'), (0, NOW + 5, b'{"n":4}')]))
    assert await premises.store.run(lambda tx: tx.store(later, [0, 1])) == [0]
    twice = MessageBatch(
        made.runs, made.targets, record_message_id(9, 9) * 2, *[list(column) for column in (
            made.record, made.message_index, made.target_index, made.flags, made.time, made.received_time,
            made.event_time, made.data, made.payloads)], [],
    )  # fmt: skip
    assert await premises.store.run(lambda tx: tx.store(twice, [0, 1])) == [0]
    assert sorted(row.data.replace(b" ", b"") for row in await premises.history("p", device)) == [
        b'{"n":1}', b'{"n":2}', b'{"n":3}',
    ]  # fmt: skip


@pytest.mark.parametrize("commits", [True, False])
async def test_a_message_key_that_is_being_written_is_waited_for(premises: Premises, commits: bool) -> None:
    source = await premises.add_project("p")
    device = await premises.add_device("p", "a")
    made = keyed(batch(source, [target(device, "a")], [(0, NOW, b'{"n":1}')]))
    holder = await Held(premises, lambda tx: tx.store(made, [0])).worked()
    second = asyncio.ensure_future(premises.store.run(lambda tx: tx.store(made, [0])))
    assert await waits(second)
    async with asyncio.timeout(DEADLINE_S):
        await (holder.commit() if commits else holder.fail())
        assert await second == ([] if commits else [0])
    assert len(await premises.history("p", device)) == 1


async def test_current_is_the_newest_of_each_attribute(premises: Premises) -> None:
    source = await premises.add_project("p")
    device = await premises.add_device("p", "a")
    rows = [(0, NOW, b'{"a":1,"b":1}'), (0, NOW - 5, b'{"a":2,"c":2}'), (0, NOW + 5, b'{"a":3,"d":3}')]
    made = batch(source, [target(device, "a")], rows)
    made.flags[2] = HISTORY_ONLY
    await premises.store.run(lambda tx: tx.update_current(made, [2, 1, 0]))
    held = {row.attribute: row for row in await premises.current("p", device)}
    assert {name: row.value for name, row in held.items()} == {"a": b"1", "b": b"1", "c": b"2"}
    assert (held["a"].event_time, held["a"].received_time, held["a"].id) == (NOW, NOW, record_message_id(EPOCH, 0))
    again = batch(source, [target(device, "a")], [(0, NOW - 9, b'{"a":4}'), (0, NOW, b'{"b":5}'), (0, NOW, b'{"c":6}')])
    await premises.store.run(lambda tx: tx.update_current(again, [0, 1, 2]))
    values = {row.attribute: row.value for row in await premises.current("p", device)}
    assert values == {"a": b"1", "b": b"5", "c": b"6"}, "of equal times the later received, then the higher id"


async def test_what_history_does_not_keep_is_current_alone(premises: Premises) -> None:
    source = await premises.add_project("p")
    device = await premises.add_device("p", "a")
    rows = [(0, NOW, b'{"a":1,"b":{"x":1}}'), (0, NOW + 1, b'{"a":2}')]
    made = msgspec.structs.replace(
        batch(source, [target(device, "a")], rows), current_only=[b'{"b":{"x":1,"y":2},"c":3}', b""]
    )
    stored = await premises.store.run(lambda tx: tx.store(made, [0, 1]))
    await premises.store.run(lambda tx: tx.update_current(made, stored))
    values = {row.attribute: msgspec.json.decode(row.value) for row in await premises.current("p", device)}
    assert values == {"a": 2, "b": {"x": 1, "y": 2}, "c": 3}
    assert [msgspec.json.decode(row.data) for row in await premises.history("p", device)] == [
        {"a": 1, "b": {"x": 1}}, {"a": 2},
    ]  # fmt: skip


async def test_misfits_are_kept_for_the_rows_that_are_given(premises: Premises) -> None:
    source = await premises.add_project("p")
    device = await premises.add_device("p", "a")
    made = msgspec.structs.replace(
        batch(source, [target(device, "a")], [(0, NOW, b"{}")] * 3),
        misfits=[
            (Misfit("a", "type", "no", "1"),),
            (Misfit("b", "type", "not so", "2"),),
            (Misfit("", "more", "5 more", "", 5),),
        ],
    )
    await premises.store.run(lambda tx: tx.add_misfits(made, [0, 2]))
    assert await premises.misfits("p") == [
        (record_message_id(EPOCH, 0), "no", 1), (record_message_id(EPOCH, 2), "5 more", 5),
    ]  # fmt: skip


async def test_of_rows_of_one_time_the_last_received_is_current(premises: Premises) -> None:
    source = await premises.add_project("p")
    device = await premises.add_device("p", "a")
    made = batch(source, [target(device, "a")], [(0, NOW, b'{"a":%d}' % n) for n in range(4)])
    made.received_time[:] = [NOW, NOW + 5, NOW + 5, NOW + 1]
    await premises.store.run(lambda tx: tx.update_current(made, range(4)))
    (held,) = await premises.current("p", device)
    assert (held.value, held.id) == (b"2", record_message_id(EPOCH, 2)), "of two received together, the higher id"


async def test_a_replay_of_rejects_takes_those_that_it_is_about_in_order(premises: Premises) -> None:
    source = await premises.add_project("p")
    clock = Clock(3, 4, ClockState.RESTORED)
    codes = ["undecodable", "other", "undecodable", "undecodable", "undecodable"]
    rejected = [
        (
            Run(source, EPOCH, 0, 9),
            n,
            Reject(n, code, "d", NETWORK, ALIAS_KEY, "a", "t", NOW + n, b"x" * n, "cbor", clock, n == 2, b"m"),
        )
        for n, code in enumerate(codes)
    ]
    await premises.store.run(lambda tx: tx.add_rejects("p", rejected))
    assert await premises.store.run(lambda tx: tx.next_reject_replay()) is None
    await premises.want_replay("p", RejectFilter(NETWORK, "undecodable", NOW, NOW + 4))
    await premises.store.run(lambda tx: tx.add_rejects("p", rejected[:1]))  # later: it is not about this one

    async def look(tx: Transaction) -> list[list[int]]:
        replay = await tx.next_reject_replay()
        assert replay is not None
        assert replay.total == 3
        taken = [
            await tx.rejects_of(replay, limit, bytes_max) for limit, bytes_max in ((9, 99), (2, 99), (9, 4), (9, 0))
        ]
        (_, late, _) = taken[0]
        assert (late.codec, late.clock, late.metadata) == ("cbor", clock, b"m")
        assert (late.late, taken[0][0].late) == (True, False)
        return [[row.record_seq for row in rows] for rows in taken]

    assert await premises.store.run(look) == [[0, 2, 3], [0, 2], [0, 2], [0]]

    async def go_on(tx: Transaction, finished: bool) -> None:
        replay = await tx.next_reject_replay()
        assert replay is not None
        first, second, _ = await tx.rejects_of(replay, 9, 99)
        await tx.remove_rejects([first.seq])
        await tx.renew_rejects([(second.seq, "undecodable", "another reason")])
        replay = msgspec.structs.replace(replay, position=second.seq, decoded=1, failed=1)
        await tx.advance_reject_replay(replay, is_finished=finished)

    await premises.store.run(lambda tx: go_on(tx, False))

    async def rest(tx: Transaction) -> tuple[list[int], int, int]:
        replay = await tx.next_reject_replay()
        assert replay is not None
        rows = await tx.rejects_of(replay, 9, 99)
        await tx.advance_reject_replay(replay, is_finished=True)
        return [row.record_seq for row in rows], replay.decoded, replay.failed

    assert await premises.store.run(rest) == ([3], 1, 1)
    assert await premises.store.run(lambda tx: tx.next_reject_replay()) is None
    left = {(row.record_seq, row.detail) for row in await premises.rejects("p")}
    assert left == {(0, "d"), (1, "d"), (2, "another reason"), (3, "d"), (4, "d")}


async def test_two_processes_share_the_replays(premises: Premises) -> None:
    source = await premises.add_project("p")
    reject = Reject(0, "c", "d", NETWORK, ALIAS_KEY, "a", "t", NOW, b"x")
    await premises.store.run(lambda tx: tx.add_rejects("p", [(Run(source, EPOCH, 0, 1), 0, reject)]))
    await premises.want_replay("p", RejectFilter())
    first = await Held(premises, lambda tx: tx.next_reject_replay()).worked()
    assert await premises.store.run(lambda tx: tx.next_reject_replay()) is None
    await first.commit()
    assert await premises.store.run(lambda tx: tx.next_reject_replay()) is not None


async def test_rejects_that_another_replay_takes_are_waited_for_and_those_behind_them_follow(
    premises: Premises,
) -> None:
    source = await premises.add_project("p")
    reject = Reject(0, "c", "d", NETWORK, ALIAS_KEY, "a", "t", NOW, b"x")
    rejected = [(Run(source, EPOCH, 0, 3), n, reject) for n in range(3)]
    await premises.store.run(lambda tx: tx.add_rejects("p", rejected))
    await premises.want_replay("p", RejectFilter())
    await premises.want_replay("p", RejectFilter())

    async def take_two(tx: Transaction) -> None:
        replay = await tx.next_reject_replay()
        assert replay is not None
        await tx.remove_rejects([row.seq for row in await tx.rejects_of(replay, 2, 99)])

    async def take_of_the_other(tx: Transaction) -> list[int]:
        replay = await tx.next_reject_replay()
        assert replay is not None
        return [row.record_seq for row in await tx.rejects_of(replay, 2, 99)]

    first = await Held(premises, take_two).worked()
    second = asyncio.ensure_future(premises.store.run(take_of_the_other))
    assert await waits(second)
    await first.commit()
    assert await second == [2]


async def test_rejects_and_dead_letters_are_kept_as_they_came(premises: Premises) -> None:
    source = await premises.add_project("p")
    run = Run(source, EPOCH, 10, 5)
    reject = Reject(2, "undecodable", "not JSON", NETWORK, ALIAS_KEY, "a", "up", NOW, b"\xff")
    await premises.store.run(lambda tx: tx.add_rejects("p", [(run, 12, reject)]))
    (row,) = await premises.rejects("p")
    assert (row.source_id, row.epoch, row.record_seq, row.code, row.detail) == (
        source,
        EPOCH,
        12,
        "undecodable",
        "not JSON",
    )
    assert (row.network_id, row.alias, row.topic, row.received_time, row.payload) == (NETWORK, "a", "up", NOW, b"\xff")
    await premises.store.run(
        lambda tx: tx.add_dead_letter(project_id="p", hop="h", topic="t", runs=[run], detail="why", data=b"\0")
    )
    assert await premises.dead_letters("p") == [DeadLetter("h", "t", "why", b"\0")]


def answer(command_id: str, alias: str, refusal: str | None = None, payload: bytes = b"done") -> Answer:
    return Answer(command_id, NETWORK, ALIAS_KEY, alias, payload, refusal, NOW)


async def test_the_first_answer_of_the_own_device_counts(premises: Premises) -> None:
    await premises.add_project("p")
    await premises.add_project("q")
    device = await premises.add_device("p", "a")
    await premises.add_device("p", "b")
    done, refused = await premises.add_command("p", device), await premises.add_command("p", device)
    none = "00000000-0000-0000-0000-0000000000ff"
    others = [answer(done, "b"), answer(done, "x"), answer(none, "a"), answer("no id", "a")]
    strays = await premises.store.run(lambda tx: tx.answer_commands("p", others))
    assert sorted(strays, key=others.index) == others
    assert await premises.store.run(lambda tx: tx.answer_commands("q", [answer(done, "a")])) == [answer(done, "a")]
    assert (await premises.command("p", device, done))[0].state is CommandState.PENDING
    said = [answer(done, "a"), answer(refused, "a", "stuck", b""), answer(done, "a", "again")]
    for _ in range(2):
        assert await premises.store.run(lambda tx: tx.answer_commands("p", said)) == []
        assert await premises.command("p", device, done) == (
            Standing(CommandState.ACKNOWLEDGED, "", NOW, answered=True),
            b"done",
        )
        assert await premises.command("p", device, refused) == (
            Standing(CommandState.FAILED, "stuck", NOW, answered=True),
            b"",
        )


async def test_the_newest_word_on_a_device_counts(premises: Premises) -> None:
    source = await premises.add_project("p")
    one, other = await premises.add_device("p", "a"), await premises.add_device("p", "b")

    def word(alias: str, time: int, *, online: bool, reason: str, listener: str = "mqtt", seq: int = 0) -> Seen:
        record = record_message_id(EPOCH, seq)
        return Seen(source, NETWORK, ALIAS_KEY if alias else "", alias, listener, online, reason, time, record)

    async def note(*words: Seen) -> None:
        await premises.store.run(lambda tx: tx.note_presence("p", words))

    assert await premises.presence("p", one) is None
    await note(word("b", NOW, online=True, reason="came", seq=1), word("a", NOW, online=True, reason="came"))
    await note(word("a", NOW - 1, online=False, reason="late"))
    assert await premises.presence("p", one) == (True, "came", NOW)
    await note(word("", NOW + 2, online=False, reason="other listener", listener="tcp", seq=9))
    await note(word("", NOW, online=False, reason="began anew", seq=1))
    assert await premises.presence("p", one) == (False, "began anew", NOW)
    assert await premises.presence("p", other) == (True, "came", NOW), "what comes after is of the new run"
    await note(word("a", NOW + 1, online=True, reason="back"), word("b", NOW + 1, online=False, reason="left"))
    assert await premises.presence("p", one) == (True, "back", NOW + 1)
    assert await premises.presence("p", other) == (False, "left", NOW + 1)
