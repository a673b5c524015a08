"""The cloud's accounting at every moment, also at those at which a hop has committed before the one ahead of it."""

from __future__ import annotations

import pytest

from cloud.db import accounting
from cloud.db.database import Database
from cloud.db.postgres_store import PostgresStore
from cloud.model.accounting import SourceAccount
from cloud.model.claim import INBOX_EPOCH
from cloud.services.store import Transaction
from protocols.shipment import Run

pytest_plugins = ("tests.contract.postgres",)

EPOCH = 4711


class Ledger:
    """One source, and what its hops have committed."""

    def __init__(self, database: Database, source_id: int) -> None:
        self._database = database
        self._source_id = source_id

    async def commit(self, hop: str, first: int, count: int, *, epoch: int = EPOCH, **fates: int) -> None:
        async def work(tx: Transaction) -> None:
            done = await tx.claim(hop, [Run(self._source_id, epoch, first, count)])
            for fate, number in fates.items():
                done.count(self._source_id, epoch, fate, number)
            await tx.settle(done)

        await PostgresStore(self._database).run(work)

    async def account(self) -> SourceAccount:
        """It closes, whenever it is asked for."""
        async with self._database.connection() as conn:
            (account,) = await accounting.by_source(conn, "p")
        assert account.closed, account
        return account


@pytest.fixture
async def ledger(database: Database) -> Ledger:
    async with database.transaction() as conn:
        await conn.execute("INSERT INTO project (id, name) VALUES ('p', 'P')")
        source_id = await conn.fetchval("INSERT INTO source (project_id, kind) VALUES ('p', 'rest') RETURNING id")
    return Ledger(database, source_id)


async def test_the_usual_order(ledger: Ledger) -> None:
    await ledger.commit("receiver", 0, 10, accepted=10)
    assert (await ledger.account()).records_in_pipeline == 10
    await ledger.commit("processor", 0, 10, decoded_records=9, rejected_records=1, decoded=12)
    account = await ledger.account()
    assert (account.records_in_pipeline, account.in_pipeline, account.records_at_writer) == (0, 12, 10)
    await ledger.commit("transponder", 0, 10, stored=11, repeated=1)
    account = await ledger.account()
    assert (account.in_pipeline, account.records_at_writer) == (0, 0)


async def test_what_the_processor_has_done_is_accepted(ledger: Ledger) -> None:
    await ledger.commit("receiver", 0, 10, accepted=10)
    await ledger.commit("processor", 5, 15, decoded_records=15, decoded=15)
    account = await ledger.account()
    assert (account.accepted, account.records_in_pipeline) == (20, 5)
    await ledger.commit("receiver", 10, 10, accepted=10)
    assert (await ledger.account()).accepted == 20


async def test_what_was_replayed_and_stored_is_not_unresolved(ledger: Ledger) -> None:
    await ledger.commit("receiver", 0, 3, accepted=3)
    await ledger.commit("processor", 0, 3, decoded_records=3, decoded=3, unresolved=3)
    await ledger.commit("transponder", 0, 3)
    assert (await ledger.account()).unresolved == 3
    await ledger.commit("inbox", 0, 2, epoch=INBOX_EPOCH, unresolved=-2)
    account = await ledger.account()
    assert (account.unresolved, account.in_pipeline, account.records_at_writer) == (1, 2, 2)
    await ledger.commit("transponder", 0, 2, epoch=INBOX_EPOCH, stored=2)
    account = await ledger.account()
    assert (account.decoded, account.stored, account.unresolved, account.in_pipeline) == (3, 2, 1, 0)


async def test_losses_stand_apart(ledger: Ledger) -> None:
    await ledger.commit("receiver", 0, 3, accepted=3)
    await ledger.commit("gap", 3, 7, evicted=5, damaged=2)
    await ledger.commit("gap", 3, 0, epoch=EPOCH + 1, tails=1)
    account = await ledger.account()
    assert (account.accepted, account.evicted, account.damaged, account.tails) == (3, 5, 2, 1)


async def test_a_loss_is_not_explained_away(ledger: Ledger) -> None:
    await ledger.commit("receiver", 0, 10, accepted=10)
    await ledger.commit("processor", 0, 10, decoded_records=10, decoded=10)
    await ledger.commit("transponder", 0, 10, stored=9)
    with pytest.raises(AssertionError):
        await ledger.account()


async def test_a_message_too_many_is_not_explained_away(ledger: Ledger) -> None:
    await ledger.commit("receiver", 0, 10, accepted=10)
    await ledger.commit("processor", 0, 10, decoded_records=10, decoded=10)
    await ledger.commit("transponder", 0, 10, stored=11)
    with pytest.raises(AssertionError):
        await ledger.account()
