"""History rows in PostgreSQL's binary COPY format, packed straight from the columns of a message batch.

A row at a time through the driver's own encoders costs four times as much. The format (PostgreSQL documentation, COPY,
"Binary Format"), big endian:

    "PGCOPY\\n\\xff\\r\\n\\0"  signature, 11 bytes; int32 flags 0; int32 extension length 0
    for each row            int16 number of fields; each: int32 length (-1: null) and the field
    int16 -1                end
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from protocols.shipment import KEYED, MessageBatch, Target, carriers_of

COLUMNS: Final = (
    "project_id",
    "device_id",
    "event_time",
    "id",
    "received_time",
    "time",
    "flags",
    "record",
    "time_error_ms",
    "data",
)
_HEAD: Final = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_END: Final = struct.pack(">h", -1)
_NULL: Final = struct.pack(">i", -1)
_TIMES_AND_ID: Final = struct.Struct(">iqi16siq").pack
_UNTIMED: Final = struct.Struct(">iqi16siqiihiiiB").pack
"""_TIMES_AND_ID, no time, flags, no record, no bound of an error, the head of the data: most rows of devices without
a clock, in one call."""
_TIMED: Final = struct.Struct(">iqi16siqiqihiiiB").pack
"""The same with a time."""
_INT64: Final = struct.Struct(">iq").pack
_INT32: Final = struct.Struct(">ii").pack
_INT16: Final = struct.Struct(">ih").pack
_UUID: Final = struct.Struct(">i16s").pack
_JSONB: Final = struct.Struct(">iB").pack
_JSONB_VERSION: Final = 1


def pack_history(batch: MessageBatch, rows: Sequence[int]) -> bytes:
    """Those rows of the batch, in the order of COLUMNS."""
    starts = [_row_start(target) for target in batch.targets]
    of_row, event_time, received_time = batch.target_index, batch.event_time, batch.received_time
    ids, flags, times, data, bounds = batch.ids, batch.flags, batch.time, batch.data, batch.time_error_ms
    carriers = carriers_of(batch) if any(flags[i] & KEYED for i in rows) else []
    parts = [_HEAD]
    for i in rows:
        flag, time, body, message_id = flags[i], times[i], data[i], ids[16 * i : 16 * i + 16]
        parts.append(starts[of_row[i]])
        if flag & KEYED or bounds:
            parts += (
                _TIMES_AND_ID(8, event_time[i], 16, message_id, 8, received_time[i]),
                _NULL if time is None else _INT64(8, time),
                _INT16(2, flag),
                _UUID(16, carriers[i]) if flag & KEYED else _NULL,
                _NULL if not bounds or (bound := bounds[i]) is None else _INT32(4, bound),
                _JSONB(len(body) + 1, _JSONB_VERSION),
            )
        elif time is None:
            parts.append(
                _UNTIMED(
                    8, event_time[i], 16, message_id, 8, received_time[i], -1, 2, flag, -1, -1, len(body) + 1,
                    _JSONB_VERSION,
                )
            )  # fmt: skip
        else:
            parts.append(
                _TIMED(
                    8, event_time[i], 16, message_id, 8, received_time[i], 8, time, 2, flag, -1, -1, len(body) + 1,
                    _JSONB_VERSION,
                )
            )  # fmt: skip
        parts.append(body)
    parts.append(_END)
    return b"".join(parts)


def _row_start(target: Target) -> bytes:
    """What all rows of one device start with."""
    project = target.project_id.encode()
    return struct.pack(f">hi{len(project)}siq", len(COLUMNS), len(project), project, 8, target.device_id)
