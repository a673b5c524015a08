"""What the services of the pipeline need of a database: transactions, and what can be done in one.

Of an implementation is asked:

*Atomic.* A transaction's changes are there together once `Store.run` returns, and then durable: no crash takes them
back. If the work raises, or the process dies before the commit, none of them is there. If the connection dies during
the commit, `run` raises DatabaseDownError and they are either all there or none; nobody knows which.

*Isolated.* What a transaction reads was committed before the statement that reads it, or changed by itself. Others see
its changes after the commit. Two statements of one transaction may see different states of what is not locked.

*Locks.* Methods that say so take locks, which last until the transaction ends, and wait for other holders. A hop's
progress is locked in order of (source id, epoch), so that transactions of one hop never wait for each other in a
circle; an implementation that finds a circle all the same ends one of the transactions, and `run` repeats it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Protocol, TypeVar

from cloud.model.claim import Claim
from cloud.model.command import Answer
from cloud.model.dead import DeadLetter
from cloud.model.importing import Chunk, LineProblem
from cloud.model.job import Job
from cloud.model.output import Output, Unsent
from cloud.model.presence import Seen
from cloud.model.rejected import RejectReplay, RejectRow
from cloud.model.unresolved import InboxRow
from protocols.messages import Anchor, Gap, Lane
from protocols.shipment import MessageBatch, Reject, Run

T = TypeVar("T")


class Transaction(Protocol):
    """Used by one task at a time, and not after the work that it was given to has ended."""

    # Progress of hops

    async def claim(self, hop: str, runs: Sequence[Run], *, held: bool = True) -> Claim:
        """Locks what the hop has of the runs' (source, epoch)s, in order, and finds what of the runs it has not done
        yet. An epoch that the hop has never seen is one that it has nothing of, and is locked too. A run of no records
        only locks. Asked again in the same transaction, it sees what was settled in between.

        Not `held`: locks nothing yet, `settle` does. So lanes of one hop work side by side; of two transactions that do
        the same records, the one that settles second is repeated."""
        ...

    async def settle(self, claim: Claim) -> None:
        """What was claimed is done from now on, what was released is not, and the fates counted with it are added to
        the hop's. Once a claim, as late as can be where it was not held; or never: then it only locked or looked.
        Raises OvertakenError, which is `run`'s to deal with."""
        ...

    # Sources and registry

    async def projects(self, source_ids: Sequence[int]) -> dict[int, str]:
        """Source to project id; a number that no source has is missing."""
        ...

    async def newest_revision(self, project_id: str, *, held: bool) -> int:
        """The revision of the project's registry. `held`: nobody changes the registry until the transaction ends;
        changes that are on their way are waited for. Transactions that hold it do not wait for each other."""
        ...

    # What gateways tell beside their blocks

    async def keep_anchors(self, source_id: int, new: Sequence[Anchor]) -> None:
        """One whose (boot, boot_ms) is kept already stays as it is."""
        ...

    async def anchors(self, source_id: int, boots: Collection[int]) -> dict[int, list[Anchor]]:
        """By boot, those of a boot by rising `boot_ms`; a boot without any is missing."""
        ...

    async def gaps(self, source_id: int, epoch: int, first_seq: int, end_seq: int) -> list[Gap]:
        """Those that have a record in [first_seq, end_seq), and tails at first_seq to end_seq, both included; by
        first_seq, a tail before the gap that begins where it is. Not locked: they change under the lock of the hop
        `gap`."""
        ...

    async def add_gaps(self, source_id: int, new: Sequence[Gap]) -> None:
        """They have no record that another one has, and are no tail at a place that has one."""
        ...

    async def remove_gaps(self, source_id: int, gone: Sequence[Gap]) -> None:
        """By epoch, first record, and whether it is a tail."""
        ...

    # Unresolved inbox

    async def add_unresolved(self, batch: MessageBatch, rows: Sequence[int]) -> None:
        """Keeps those rows of the batch, with the payloads of their records. They become numbered `seq`, rising."""
        ...

    async def replayable(self, limit: int) -> list[tuple[int, int]]:
        """(source id, inbox seq) of messages without a replay number whose device exists by now, in order; locked.
        Those that another transaction has locked are passed over."""
        ...

    async def number(self, numbers: Sequence[tuple[int, int]]) -> None:
        """(inbox seq, replay number): gives messages of the inbox their place in the replay."""
        ...

    async def numbered(self, limit: int) -> list[tuple[str, InboxRow]]:
        """(project id, message) of those that have a replay number, in order of (source, number); locked."""
        ...

    async def put_back(self, seqs: Sequence[int]) -> None:
        """These messages of the inbox have no replay number any more, and wait as before."""
        ...

    async def remove(self, seqs: Sequence[int]) -> None:
        """These messages are not in the inbox any more."""
        ...

    # What goes to other topics

    async def add_unsent(self, hop: str, lane: Lane, outputs: Sequence[Output]) -> list[int]:
        """Keeps what the hop gives to other topics; their numbers, in order, rising."""
        ...

    async def unsent(self, hop: str, limit: int) -> list[Unsent]:
        """The hop's oldest, by number; not locked."""
        ...

    async def remove_unsent(self, numbers: Sequence[int]) -> None:
        """The bus has them. Some may be gone already."""
        ...

    # What goes no further

    async def add_rejects(self, project_id: str, rejected: Sequence[tuple[Run, int, Reject]]) -> None:
        """`rejected`: the run, the record's seq, and what is wrong with it."""
        ...

    async def next_reject_replay(self) -> RejectReplay | None:
        """The oldest that is not finished, locked; one that another transaction has locked is passed over."""
        ...

    async def rejects_of(self, replay: RejectReplay, limit: int, bytes_max: int) -> list[RejectRow]:
        """The next rejects that a replay is about, in order; locked. One at least, unless there are none left: then the
        others as far as their payloads are not larger than `bytes_max` together."""
        ...

    async def remove_rejects(self, seqs: Sequence[int]) -> None:
        """These records have decoded."""
        ...

    async def renew_rejects(self, reasons: Sequence[tuple[int, str, str]]) -> None:
        """(seq, code, detail): why these records do not decode by now."""
        ...

    async def advance_reject_replay(self, replay: RejectReplay, *, is_finished: bool) -> None:
        """Its position and counts are these from now on."""
        ...

    async def add_dead_letter(
        self, *, project_id: str, hop: str, topic: str, runs: Sequence[Run], detail: str, data: bytes
    ) -> None:
        """What a hop could not do for good, as it came. `runs`: the records that it is about, of one source and epoch,
        at least one."""
        ...

    async def next_dead_letter(
        self, project_id: str, position: int, through: int, hop: str | None, seq: int | None
    ) -> DeadLetter | None:
        """The first behind number `position`, up to number `through`, with its bytes; locked. `hop`, `seq`: only of
        this hop, only this one."""
        ...

    async def remove_dead_letter(self, seq: int) -> None:
        """It was given to its hop again."""
        ...

    # Imports

    async def import_chunk(self, project_id: str, file_id: int, number: int) -> Chunk | None:
        """None: there are no more. Raises NotFoundError: the file is gone."""
        ...

    async def add_import_problems(self, project_id: str, job: int, problems: Sequence[LineProblem]) -> None:
        """Lines that a job could not read."""
        ...

    # Jobs

    async def next_job(self, kinds: Collection[str]) -> Job | None:
        """The one of these kinds that has waited longest for its turn, locked; one that another transaction has locked
        is passed over."""
        ...

    async def advance_job(self, job: Job) -> None:
        """Its state, position, progress, result and error are these from now on; it has had its turn."""
        ...

    # What devices answer, and whether they are there

    async def answer_commands(self, project_id: str, answers: Sequence[Answer]) -> list[Answer]:
        """The first answer to a command is kept with it (cloud/model/command.py), later ones are passed over. Returns
        those that came under a name that is none of the command's device. Commands are locked in order."""
        ...

    async def note_presence(self, project_id: str, seen: Sequence[Seen]) -> None:
        """Of each name the newest word is kept, by (time, record). A word without an alias is one on each name that is
        online by an older word of that source and listener, on that network. Names are locked in order."""
        ...

    # History and current values

    async def ensure_partitions(self, now_ms: int) -> None:
        """Makes room for rows of that time (Unix ms) and the weeks after it."""
        ...

    async def store(self, batch: MessageBatch, rows: Sequence[int]) -> list[int]:
        """Writes those rows of the batch to history, but for those with a message key (flag KEYED) whose id is held
        already, or stands in an earlier one of the rows. Gives the rows that were written, in their order. Ids are
        locked in order: a transaction that is writing one of them is waited for, and if it fails, the id is free."""
        ...

    async def update_current(self, batch: MessageBatch, rows: Sequence[int]) -> None:
        """Each attribute of each device takes the newest value, by (event time, received time, id), of what it has and
        what those rows bring; rows with flag HISTORY_ONLY bring nothing. Locks in order of (device, attribute)."""
        ...

    async def add_misfits(self, batch: MessageBatch, rows: Sequence[int]) -> None:
        """Keeps what was left out of those rows, the newest of each project, and counts it. Locks in order of (device,
        attribute)."""
        ...


class Store(Protocol):
    async def run(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Gives `work` a transaction, commits when it returns, and returns what it returned. Whatever it raises undoes
        the transaction and is raised. Work may be run several times, when its transaction met others in a circle, or
        was overtaken.

        Raises DatabaseDownError (cloud/db/database.py): whether it is committed, nobody knows; DatabaseBusyError:
        nothing was changed. After either, ask again later, with work that does not mind to be done twice."""
        ...
