"""The pipeline's store (cloud/services/store.py) in memory: tables, row locks, and transactions that keep what they
change to themselves until they commit.

Each statement takes time, so that a process may be killed, or the connection be lost, between any two of them, and
before or after the commit itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final, TypeVar

import msgspec

from cloud.db.database import DatabaseBusyError, DatabaseDownError
from cloud.model.claim import FATES, Claim, Name, OvertakenError, Settlement
from cloud.model.command import Answer, Standing, answered
from cloud.model.output import Output, Unsent
from cloud.model.presence import Seen
from cloud.model.rejected import UNKNOWN_CLOCK, RejectReplay, RejectRow
from cloud.model.unresolved import InboxRow
from cloud.services.store import Transaction
from protocols.ids import record_of
from protocols.messages import Anchor, Gap, GapKind, Lane
from protocols.shipment import HISTORY_ONLY, KEYED, MessageBatch, Misfit, Reject, Run, carriers_of, record_places
from sync.ranges import Ranges
from tests.worlds.locks import CircleError, Holder, Locks
from tests.worlds.loop import PROCESS, Process

T = TypeVar("T")
U = TypeVar("U")

ATTEMPTS_MAX: Final = 8

_values: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class DoubledError(Exception):
    """A row that the primary key does not allow."""


class Progress(msgspec.Struct):
    """One hop's of one epoch of one source."""

    done: Ranges = msgspec.field(default_factory=Ranges)
    counts: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(FATES, 0))


class HistoryRow(msgspec.Struct, frozen=True):
    project_id: str
    device_id: int
    event_time: int
    id: bytes
    time: int | None
    received_time: int
    flags: int
    record: Run
    """The one that carried it, alone."""
    data: bytes
    time_error_ms: int | None


class CurrentValue(msgspec.Struct, frozen=True, order=True):
    event_time: int
    received_time: int
    id: bytes
    value: bytes


class Unresolved(msgspec.Struct, frozen=True):
    project_id: str
    row: InboxRow


class Rejected(msgspec.Struct, frozen=True):
    project_id: str
    source_id: int
    epoch: int
    record_seq: int
    reject: Reject

    def row(self, seq: int) -> RejectRow:
        given = self.reject
        return RejectRow(
            seq,
            self.source_id,
            self.epoch,
            self.record_seq,
            given.network_id,
            given.alias_key,
            given.alias,
            given.topic,
            given.code,
            given.detail,
            given.received_time,
            given.payload,
            given.codec,
            UNKNOWN_CLOCK if given.clock is None else given.clock,
            given.late,
            given.metadata,
        )


class HeldCommand(msgspec.Struct, frozen=True):
    project_id: str
    device_id: int
    standing: Standing
    answer: bytes | None = None


class DeadLetter(msgspec.Struct, frozen=True):
    project_id: str
    hop: str
    topic: str
    runs: list[Run]
    detail: str
    data: bytes


class Tables:
    """What is committed."""

    def __init__(self) -> None:
        self.projects: dict[int, str] = {}
        """By source."""
        self.revisions: dict[str, int] = {}
        """Of each project's registry."""
        self.aliases: dict[tuple[str, str, str, str], int] = {}
        """(project, network, alias key, alias) to device."""
        self.progress: dict[tuple[str, int, int], Progress] = {}
        """By hop, source and epoch."""
        self.anchors: dict[int, dict[tuple[int, int], Anchor]] = {}
        self.gaps: dict[int, dict[tuple[int, int, bool], Gap]] = {}
        """By source, then by epoch, first record and whether it is a tail."""
        self.inbox: dict[int, Unresolved] = {}
        self.unsent: dict[int, tuple[str, Unsent]] = {}
        """By number: hop and output."""
        self.rejects: dict[int, Rejected] = {}
        """By number."""
        self.reject_replays: dict[int, RejectReplay] = {}
        """By number; those that are not finished."""
        self.dead_letters: list[DeadLetter] = []
        self.keys: dict[bytes, int] = {}
        self.history: dict[tuple[int, int, bytes], HistoryRow] = {}
        self.current: dict[tuple[int, str], CurrentValue] = {}
        self.misfits: list[tuple[str, bytes, Misfit]] = []
        """Project, message and what was left out of it."""
        self.commands: dict[str, HeldCommand] = {}
        self.presence: dict[tuple[str, str, str, str], Seen] = {}
        """By (project, network, alias key, alias)."""


class MemoryStore:
    """`pause` is awaited for each way to the database and back; `uncertain` is asked at each commit: None, or whether
    it is committed before the connection is lost. `on_commit` sees each transaction when it is."""

    def __init__(
        self,
        pause: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0),
        uncertain: Callable[[], bool | None] = lambda: None,
        on_commit: Callable[[MemoryTransaction], None] = lambda tx: None,
    ) -> None:
        self.tables = Tables()
        self.locks = Locks()
        self.down = False
        self.pause = pause
        self._uncertain = uncertain
        self._on_commit = on_commit
        self._open: dict[MemoryTransaction, Process | None] = {}
        self.inbox_seq = 0
        self.unsent_number = 0
        self.reject_seq = 0

    async def run(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        for _ in range(ATTEMPTS_MAX):
            tx = MemoryTransaction(self)
            self._open[tx] = PROCESS.get()
            try:
                result = await work(tx)
                await tx.commit()
                return result
            except (CircleError, OvertakenError):
                continue
            finally:
                self._end(tx)
        raise DatabaseBusyError(f"gave up after {ATTEMPTS_MAX} attempts")

    def reached(self, tx: MemoryTransaction) -> None:
        """Raises DatabaseDownError where the transaction has no connection any more."""
        if self.down or tx.over:
            raise DatabaseDownError("the database went away")

    def committed(self, tx: MemoryTransaction) -> bool:
        """Commits; False if the connection is lost in it, and then nobody knows."""
        fate = self._uncertain()
        if fate is not False:
            tx.apply(self.tables)
            self._on_commit(tx)
        tx.over = fate is not None
        return fate is None

    def abandon(self, process: Process) -> None:
        """The process is gone: what it had open is rolled back."""
        for tx, owner in list(self._open.items()):
            if owner is process:
                self._end(tx)

    def crash(self) -> None:
        """Every transaction is rolled back; what is committed stays."""
        self.down = True
        for tx in list(self._open):
            self._end(tx)

    def _end(self, tx: MemoryTransaction) -> None:
        tx.over = True
        self._open.pop(tx, None)
        self.locks.release(tx)


class MemoryTransaction(Holder):
    """The Transaction of cloud/services/store.py, read committed."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__()
        self.over = False
        self.settled: list[tuple[str, Settlement]] = []
        """Hop and what it adds."""
        self._store = store
        self._tables = store.tables
        self._anchors: dict[int, dict[tuple[int, int], Anchor]] = {}
        self._gaps: dict[int, dict[tuple[int, int, bool], Gap | None]] = {}
        self.new_unresolved: list[Unresolved] = []
        """Put into the inbox here."""
        self._inbox: dict[int, Unresolved | None] = {}
        self.unsent_changes: dict[int, tuple[str, Unsent] | None] = {}
        """By number; None: forgotten."""
        self._rejects: dict[int, Rejected | None] = {}
        self._reject_replays: dict[int, RejectReplay | None] = {}
        self._dead_letters: list[DeadLetter] = []
        self._keys: dict[bytes, int] = {}
        self.rows: dict[tuple[int, int, bytes], HistoryRow] = {}
        """New in history."""
        self.current: dict[tuple[int, str], CurrentValue] = {}
        self._misfits: list[tuple[str, bytes, Misfit]] = []
        self._commands: dict[str, HeldCommand] = {}
        self._presence: dict[tuple[str, str, str, str], Seen] = {}

    async def commit(self) -> None:
        await self._statement()
        told = self._store.committed(self)
        if told:
            self._store.locks.release(self)
        await self._store.pause()
        if not told:
            raise DatabaseDownError("the connection was lost during the commit")

    def apply(self, tables: Tables) -> None:
        for hop, settlement in self.settled:
            progress = tables.progress.setdefault((hop, settlement.source_id, settlement.epoch), Progress())
            progress.done = _settled(progress.done, settlement)
            for fate, number in settlement.counts.items():
                progress.counts[fate] += number
        for source_id, anchors in self._anchors.items():
            kept = tables.anchors.setdefault(source_id, {})
            for place, anchor in anchors.items():
                kept.setdefault(place, anchor)
        for source_id, gaps in self._gaps.items():
            _overlay(tables.gaps.setdefault(source_id, {}), gaps)
        _overlay(tables.inbox, self._inbox)
        _overlay(tables.unsent, self.unsent_changes)
        _overlay(tables.rejects, self._rejects)
        _overlay(tables.reject_replays, self._reject_replays)
        tables.dead_letters += self._dead_letters
        tables.keys.update(self._keys)
        tables.history.update(self.rows)
        tables.current.update(self.current)
        tables.misfits += self._misfits
        tables.commands.update(self._commands)
        tables.presence.update(self._presence)

    # Progress of hops

    async def claim(self, hop: str, runs: Sequence[Run], *, held: bool = True) -> Claim:
        await self._statement()
        names = sorted({(run.source_id, run.epoch) for run in runs})
        if held:
            await self._lock_progress(hop, names)
        return Claim(hop, runs, {name: self._done(hop, name) for name in names}, held=held)

    async def settle(self, claim: Claim) -> None:
        await self._statement()
        if not claim.held:
            names = sorted(claim.done)
            await self._lock_progress(claim.hop, names)
            claim.check({name: self._done(claim.hop, name) for name in names})
        self.settled += [(claim.hop, settlement) for settlement in claim.settlements()]

    async def _lock_progress(self, hop: str, names: Sequence[Name]) -> None:
        for name in names:
            await self._lock(("progress", hop, *name))

    async def done(self, hop: str, names: Sequence[Name]) -> dict[Name, Ranges]:
        await self._statement()
        found = {name: self._done(hop, name) for name in names}
        return {name: ranges for name, ranges in found.items() if ranges}

    def _done(self, hop: str, name: Name) -> Ranges:
        progress = self._tables.progress.get((hop, *name))
        done = Ranges(progress.done) if progress is not None else Ranges()
        for other, settlement in self.settled:
            if other == hop and (settlement.source_id, settlement.epoch) == name:
                done = _settled(done, settlement)
        return done

    # Sources and registry

    async def projects(self, source_ids: Sequence[int]) -> dict[int, str]:
        await self._statement()
        return {number: self._tables.projects[number] for number in source_ids if number in self._tables.projects}

    async def newest_revision(self, project_id: str, *, held: bool) -> int:
        await self._statement()
        if held:
            await self._lock(("project", project_id), exclusive=False)
        return self._tables.revisions[project_id]

    # What gateways tell beside their blocks

    async def keep_anchors(self, source_id: int, new: Sequence[Anchor]) -> None:
        await self._statement()
        kept = self._anchors.setdefault(source_id, {})
        for anchor in new:
            kept.setdefault((anchor.boot, anchor.boot_ms), anchor)

    async def anchors(self, source_id: int, boots: Collection[int]) -> dict[int, list[Anchor]]:
        await self._statement()
        known = {**self._anchors.get(source_id, {}), **self._tables.anchors.get(source_id, {})}
        found: dict[int, list[Anchor]] = {}
        for (boot, _), anchor in sorted(known.items()):
            if boot in boots:
                found.setdefault(boot, []).append(anchor)
        return found

    async def gaps(self, source_id: int, epoch: int, first_seq: int, end_seq: int) -> list[Gap]:
        await self._statement()
        known: dict[tuple[int, int, bool], Gap] = dict(self._tables.gaps.get(source_id, {}))
        _overlay(known, self._gaps.get(source_id, {}))
        found = [
            gap
            for gap in known.values()
            if gap.epoch == epoch
            and (
                first_seq <= gap.first_seq <= end_seq
                if gap.kind is GapKind.TAIL
                else gap.first_seq < end_seq and gap.end_seq > first_seq
            )
        ]
        return sorted(found, key=lambda gap: (gap.first_seq, gap.end_seq))

    async def add_gaps(self, source_id: int, new: Sequence[Gap]) -> None:
        await self._statement()
        self._gaps.setdefault(source_id, {}).update((_gap_key(gap), gap) for gap in new)

    async def remove_gaps(self, source_id: int, gone: Sequence[Gap]) -> None:
        await self._statement()
        self._gaps.setdefault(source_id, {}).update((_gap_key(gap), None) for gap in gone)

    # Unresolved inbox

    async def add_unresolved(self, batch: MessageBatch, rows: Sequence[int]) -> None:
        await self._statement()
        places = record_places(batch.runs)
        carriers = carriers_of(batch)
        for i in rows:
            target, (run, _) = batch.targets[batch.target_index[i]], places[batch.record[i]]
            self._store.inbox_seq += 1
            added = self._inbox[self._store.inbox_seq] = Unresolved(
                target.project_id,
                InboxRow(
                    self._store.inbox_seq,
                    run.source_id,
                    target.network_id,
                    target.alias_key,
                    target.alias,
                    _id(batch, i),
                    carriers[i],
                    batch.flags[i],
                    batch.time[i],
                    batch.received_time[i],
                    batch.event_time[i],
                    batch.data[i],
                    batch.payloads[i],
                    None,
                    _time_error_ms(batch, i),
                ),
            )
            self.new_unresolved.append(added)

    async def replayable(self, limit: int) -> list[tuple[int, int]]:
        await self._statement()
        found: list[tuple[int, int]] = []
        for seq, held in sorted(self._unresolved(), key=lambda item: (item[1].row.source_id, item[0])):
            row = held.row
            name = (held.project_id, row.network_id, row.alias_key, row.alias)
            if row.replay_seq is not None or name not in self._tables.aliases or len(found) == limit:
                continue
            if self._store.locks.is_free(self, ("inbox", seq)):
                await self._lock(("inbox", seq))
                found.append((row.source_id, seq))
        return found

    async def number(self, numbers: Sequence[tuple[int, int]]) -> None:
        await self._statement()
        for seq, replay_seq in numbers:
            self._change(seq, replay_seq)

    async def numbered(self, limit: int) -> list[tuple[str, InboxRow]]:
        await self._statement()
        found = sorted(
            (held.row.source_id, held.row.replay_seq, seq)
            for seq, held in self._unresolved()
            if held.row.replay_seq is not None
        )
        for _, _, seq in found[:limit]:
            await self._lock(("inbox", seq))
        now = dict(self._unresolved())
        rows = [now[seq] for _, _, seq in found[:limit] if seq in now]
        return [(held.project_id, held.row) for held in rows if held.row.replay_seq is not None]

    async def put_back(self, seqs: Sequence[int]) -> None:
        await self._statement()
        for seq in seqs:
            self._change(seq, None)

    async def remove(self, seqs: Sequence[int]) -> None:
        await self._statement()
        for seq in seqs:
            self._inbox[seq] = None

    def _unresolved(self) -> list[tuple[int, Unresolved]]:
        known: dict[int, Unresolved] = dict(self._tables.inbox)
        _overlay(known, self._inbox)
        return sorted(known.items())

    def _change(self, seq: int, replay_seq: int | None) -> None:
        held = self._inbox.get(seq) or self._tables.inbox[seq]
        row = msgspec.structs.replace(held.row, replay_seq=replay_seq)
        self._inbox[seq] = msgspec.structs.replace(held, row=row)

    # What goes to other topics

    async def add_unsent(self, hop: str, lane: Lane, outputs: Sequence[Output]) -> list[int]:
        await self._statement()
        numbers: list[int] = []
        for output in outputs:
            self._store.unsent_number += 1
            numbers.append(self._store.unsent_number)
            self.unsent_changes[numbers[-1]] = hop, Unsent(numbers[-1], lane, output)
        return numbers

    async def unsent(self, hop: str, limit: int) -> list[Unsent]:
        await self._statement()
        known: dict[int, tuple[str, Unsent]] = dict(self._tables.unsent)
        _overlay(known, self.unsent_changes)
        return [unsent for _, (of_hop, unsent) in sorted(known.items()) if of_hop == hop][:limit]

    async def remove_unsent(self, numbers: Sequence[int]) -> None:
        await self._statement()
        self.unsent_changes.update(dict.fromkeys(numbers))

    # What goes no further

    # What devices answer, and whether they are there

    async def answer_commands(self, project_id: str, answers: Sequence[Answer]) -> list[Answer]:
        await self._statement()
        strays: list[Answer] = []
        for place, answer in sorted(enumerate(answers), key=lambda each: (each[1].command_id, each[0])):
            await self._lock(("command", answer.command_id))
            held = self._commands.get(answer.command_id) or self._tables.commands.get(answer.command_id)
            device_id = self._tables.aliases.get((project_id, answer.network_id, answer.alias_key, answer.alias))
            if held is not None and (held.project_id, held.device_id) == (project_id, device_id):
                standing = answered(held.standing, answer.refusal, answer.time)
                if standing is not held.standing:
                    self._commands[answer.command_id] = msgspec.structs.replace(
                        held, standing=standing, answer=answers[place].payload
                    )
            else:
                strays.append(answer)
        return strays

    async def note_presence(self, project_id: str, seen: Sequence[Seen]) -> None:
        await self._statement()
        for one in sorted(seen, key=lambda one: (one.network_id, one.alias_key, one.alias, one.time, one.record)):
            known = {**self._tables.presence, **self._presence}
            names = [(project_id, one.network_id, one.alias_key, one.alias)]
            if not one.alias:
                place = (one.source_id, one.network_id, one.listener)
                names = [
                    name
                    for name, held in sorted(known.items())
                    if held.online
                    and name[0] == project_id
                    and (held.source_id, held.network_id, held.listener) == place
                ]
            for name in names:
                await self._lock(("presence", *name))
                held_one = self._presence.get(name) or self._tables.presence.get(name)
                if held_one is None or (held_one.time, held_one.record) < (one.time, one.record):
                    self._presence[name] = msgspec.structs.replace(one, alias_key=name[2], alias=name[3])

    async def add_rejects(self, project_id: str, rejected: Sequence[tuple[Run, int, Reject]]) -> None:
        await self._statement()
        for run, seq, reject in rejected:
            self._store.reject_seq += 1
            self._rejects[self._store.reject_seq] = Rejected(project_id, run.source_id, run.epoch, seq, reject)

    async def next_reject_replay(self) -> RejectReplay | None:
        await self._statement()
        for number in sorted(self._tables.reject_replays):
            if self._store.locks.is_free(self, ("reject replay", number)):
                await self._lock(("reject replay", number))
                return self._tables.reject_replays.get(number)
        return None

    async def rejects_of(self, replay: RejectReplay, limit: int, bytes_max: int) -> list[RejectRow]:
        await self._statement()
        while seqs := self._rejects_of(replay, limit, bytes_max):
            for seq in seqs:
                await self._lock(("reject", seq))
            if rows := [self._tables.rejects[seq].row(seq) for seq in seqs if seq in self._tables.rejects]:
                return rows
        return []

    def _rejects_of(self, replay: RejectReplay, limit: int, bytes_max: int) -> list[int]:
        seqs: list[int] = []
        size = 0
        for seq, held in sorted(self._tables.rejects.items()):
            reject = held.reject
            if (
                replay.position < seq <= replay.through_seq
                and held.project_id == replay.project_id
                and replay.wanted.takes(reject.network_id, reject.code, reject.received_time)
                and len(seqs) < limit
                and (not seqs or size + len(reject.payload) <= bytes_max)
            ):
                size += len(reject.payload)
                seqs.append(seq)
        return seqs

    async def remove_rejects(self, seqs: Sequence[int]) -> None:
        await self._statement()
        self._rejects.update(dict.fromkeys(seqs))

    async def renew_rejects(self, reasons: Sequence[tuple[int, str, str]]) -> None:
        await self._statement()
        for seq, code, detail in reasons:
            held = self._tables.rejects[seq]
            reject = msgspec.structs.replace(held.reject, code=code, detail=detail)
            self._rejects[seq] = msgspec.structs.replace(held, reject=reject)

    async def advance_reject_replay(self, replay: RejectReplay, *, is_finished: bool) -> None:
        await self._statement()
        self._reject_replays[replay.number] = None if is_finished else replay

    async def add_dead_letter(
        self, *, project_id: str, hop: str, topic: str, runs: Sequence[Run], detail: str, data: bytes
    ) -> None:
        await self._statement()
        self._dead_letters.append(DeadLetter(project_id, hop, topic, list(runs), detail, data))

    # History and current values

    async def ensure_partitions(self, now_ms: int) -> None:
        await self._statement()

    async def store(self, batch: MessageBatch, rows: Sequence[int]) -> list[int]:
        await self._statement()
        fresh = await self._fresh(batch, rows)
        places = record_places(batch.runs)
        carriers = carriers_of(batch)
        for i in fresh:
            target, (run, _) = batch.targets[batch.target_index[i]], places[batch.record[i]]
            carrier = record_of(carriers[i])
            assert carrier is not None, "it has no key"
            key = (target.device_id, batch.event_time[i], _id(batch, i))
            await self._lock(("history", *key))
            if key in self.rows or key in self._tables.history:
                raise DoubledError(f"{key} stands in history")
            self.rows[key] = HistoryRow(
                target.project_id,
                *key,
                batch.time[i],
                batch.received_time[i],
                batch.flags[i],
                Run(run.source_id, carrier.epoch, carrier.seq, 1),
                batch.data[i],
                _time_error_ms(batch, i),
            )
        return fresh

    async def _fresh(self, batch: MessageBatch, rows: Sequence[int]) -> list[int]:
        """The rows whose message has no key, or one that is not held."""
        first: dict[bytes, int] = {}
        for i in rows:
            if batch.flags[i] & KEYED:
                first.setdefault(_id(batch, i), i)
        for key in sorted(first):
            await self._lock(("key", key))
            if key in self._tables.keys or key in self._keys:
                first[key] = -1
            else:
                self._keys[key] = batch.event_time[first[key]]
        return [i for i in rows if not batch.flags[i] & KEYED or first[_id(batch, i)] == i]

    async def update_current(self, batch: MessageBatch, rows: Sequence[int]) -> None:
        await self._statement()
        newest: dict[tuple[int, str], CurrentValue] = {}
        for i in rows:
            if batch.flags[i] & HISTORY_ONLY:
                continue
            device_id = batch.targets[batch.target_index[i]].device_id
            at = (batch.event_time[i], batch.received_time[i], _id(batch, i))
            for attribute, value in _values(batch.current_of(i)).items():
                new = CurrentValue(*at, bytes(value))
                name = (device_id, attribute)
                newest[name] = max(newest.get(name, new), new)
        for name in sorted(newest):
            if self._is_newer(name, newest[name]):  # what is late anyway takes no lock
                await self._lock(("current", *name))
                if self._is_newer(name, newest[name]):
                    self.current[name] = newest[name]

    async def add_misfits(self, batch: MessageBatch, rows: Sequence[int]) -> None:
        await self._statement()
        for i in rows:
            project_id = batch.targets[batch.target_index[i]].project_id
            self._misfits += [(project_id, _id(batch, i), misfit) for misfit in batch.misfits[i]]

    def _is_newer(self, name: tuple[int, str], value: CurrentValue) -> bool:
        held = self.current.get(name) or self._tables.current.get(name)
        return held is None or held < value

    async def _statement(self) -> None:
        await self._store.pause()
        self._store.reached(self)

    async def _lock(self, name: tuple[object, ...], *, exclusive: bool = True) -> None:
        await self._store.locks.take(self, name, exclusive=exclusive)
        self._store.reached(self)


def _settled(done: Ranges, settlement: Settlement) -> Ranges:
    """`done` as the settlement leaves it."""
    left = Ranges(done)
    if settlement.released:
        left = Ranges()
        for start, end in done:
            for first, behind in settlement.released.missing(start, end):
                left.add(first, behind)
    for start, end in settlement.done:
        left.add(start, end)
    return left


def _overlay(under: dict[T, U], over: dict[T, U | None]) -> None:
    for key, value in over.items():
        if value is None:
            under.pop(key, None)
        else:
            under[key] = value


def _gap_key(gap: Gap) -> tuple[int, int, bool]:
    return gap.epoch, gap.first_seq, gap.kind is GapKind.TAIL


def _id(batch: MessageBatch, row: int) -> bytes:
    return batch.ids[16 * row : 16 * row + 16]


def _time_error_ms(batch: MessageBatch, row: int) -> int | None:
    return batch.time_error_ms[row] if batch.time_error_ms else None
