"""Reads files of past telemetry into the pipeline, as a job: a chunk a step.

Its messages are records of the project's REST server, under an epoch of the job's own. That they are accepted, what
goes to the processor, the lines that cannot be read, and the job's position are one transaction: so each line is handed
on once, wherever the job is cut off. Each message also has an id made from its line, so that what a second job reads,
or another file holds, too, is stored once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from cloud.db.errors import NotFoundError
from cloud.model.importing import ImportMapping, Line, LineProblem, LineReader, MappingError, lines_of
from cloud.model.job import Job, JobFailedError
from cloud.model.output import Output
from cloud.services import books
from cloud.services.resolving import Registries
from cloud.services.store import Transaction
from cloud.topics import DEFAULT_PROCESSOR
from protocols.batch import BatchKey, RecordBatch, encode_records
from protocols.block import encode_block
from protocols.codecs.envelope import ENVELOPE, Envelope
from protocols.limits import BATCH_BYTES_MAX, BATCH_RECORDS_MAX, PAYLOAD_BYTES_MAX
from protocols.messages import Clock, ClockState, Origin, Priority
from protocols.shipment import Consignment, Run, encode_shipment
from sync.registry import Registry

PROBLEMS_KEPT_MAX: Final = 1000
"""Lines of one job that are kept with what is wrong with them; all are counted."""
TEXT_CHARACTERS_MAX: Final = 200
"""Of such a line."""
LISTENER: Final = "import"
_BATCH_BYTES: Final = BATCH_BYTES_MAX // 4
"""Of payloads in one batch, so that names and columns fit beside them."""

Row = tuple[Origin, bytes]


class ImportJob:
    """A JobKind. `asked`: `file`, `mapping`, `epoch`."""

    def __init__(self, registries: Registries, wall_ms: Callable[[], int]) -> None:
        self._registries = registries
        self._wall_ms = wall_ms

    async def step(self, tx: Transaction, job: Job) -> tuple[Job, Sequence[Output]]:
        try:
            chunk = await tx.import_chunk(job.project_id, job.asked["file"], job.position)
            if chunk is None:
                return msgspec.structs.replace(job, state="done", done=job.total), []
            mapping = msgspec.convert(job.asked["mapping"], ImportMapping)
            reader = LineReader(mapping, chunk.head)
        except (NotFoundError, MappingError) as error:
            raise JobFailedError(str(error)) from None
        registry = await self._registries.registry(job.project_id)
        numbered = list(lines_of(chunk.data, chunk.first_line, has_header=mapping.format == "csv"))
        now_ms = self._wall_ms()
        rows: list[Row] = []
        problems: list[LineProblem] = []
        for (number, text), found in zip(numbered, reader.read([line for _, line in numbered], now_ms), strict=True):
            row = found if isinstance(found, str) else _row(registry, found, text, mapping)
            if isinstance(row, str):
                problems.append(LineProblem(number, row, shown_text(text)))
            else:
                rows.append(row)
        records, rejected = job.result.get("records", 0), job.result.get("rejected", 0)
        await tx.add_import_problems(job.project_id, job.number, problems[: max(0, PROBLEMS_KEPT_MAX - rejected)])
        outputs = []
        if rows:
            epoch = int(job.asked["epoch"], 16)
            await books.accept(tx, [Run(chunk.source_id, epoch, records, len(rows))])
            blocks = _blocks(epoch, records, rows, now_ms)
            shipment = encode_shipment([Consignment(chunk.source_id, block) for block in blocks])
            outputs = [Output(DEFAULT_PROCESSOR, shipment)]
        lines = chunk.data.count(b"\n") + (not chunk.data.endswith(b"\n"))
        moved = msgspec.structs.replace(
            job,
            position=job.position + 1,
            done=min(job.done + lines, job.total),
            result={**job.result, "records": records + len(rows), "rejected": rejected + len(problems)},
        )
        return moved, outputs


def shown_text(line: bytes) -> str:
    """A line, as it is shown with what is wrong with it; PostgreSQL's text holds no U+0000."""
    return line.decode(errors="replace").replace("\0", "�")[:TEXT_CHARACTERS_MAX]


def _row(registry: Registry, line: Line, text: bytes, mapping: ImportMapping) -> Row | str:
    network = registry.networks.get(line.network_id)
    if network is None:
        return f"there is no network {line.network_id!r}"
    origin = Origin(line.network_id, line.alias_key or network.alias_key, line.alias, "", ENVELOPE, LISTENER)
    key = f"import/{hashlib.blake2b(text, digest_size=16).hexdigest()}" if mapping.key == "line" else None
    payload = msgspec.json.encode(Envelope(msgspec.Raw(line.data), key, line.time_ms))
    if len(payload) > PAYLOAD_BYTES_MAX:
        return f"it has {len(payload):,} bytes as a message; the limit is {PAYLOAD_BYTES_MAX:,}"
    return origin, payload


def _blocks(epoch: int, first_seq: int, rows: Sequence[Row], now_ms: int) -> list[bytes]:
    """The rows under consecutive numbers, cut where a batch would be too large."""
    blocks = []
    start = size = 0
    for end, (_, payload) in enumerate(rows, 1):
        size += len(payload)
        following = len(rows[end][1]) if end < len(rows) else _BATCH_BYTES
        if end - start == BATCH_RECORDS_MAX or size + following > _BATCH_BYTES:
            blocks.append(_block(epoch, first_seq + start, rows[start:end], now_ms))
            start, size = end, 0
    return blocks


def _block(epoch: int, first_seq: int, rows: Sequence[Row], now_ms: int) -> bytes:
    origins = {origin: place for place, origin in enumerate(dict.fromkeys(origin for origin, _ in rows))}
    batch = RecordBatch(
        BatchKey(epoch, first_seq),
        Clock(epoch, 0, ClockState.SYNCHRONIZED),
        now_ms,
        origins=list(origins),
        origin_index=[origins[origin] for origin, _ in rows],
        received_delta_ms=[0] * len(rows),
        payloads=[payload for _, payload in rows],
    )
    return encode_block(
        [encode_records(batch)],
        epoch=epoch,
        first_seq=first_seq,
        records=len(rows),
        newest_ms=now_ms,
        priority=Priority.TELEMETRY,
    )
