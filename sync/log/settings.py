"""The log's settings, and its limits with their reasons."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from protocols.limits import BLOCK_BYTES_MAX

SEGMENT_BYTES_MIN: Final = 2 * BLOCK_BYTES_MAX
"""A segment of the settings holds its header and at least one of the largest blocks."""

SEGMENTS_MIN: Final = 5
"""Under the cap: one being written, one prepared, one in reserve to rewrite another into, and two that wait, so that
trimming one makes room again."""

STATE_FILE_BYTES: Final = 256 * 1024
"""One of the two files of the state. Preallocated, so that a full disk cannot keep it from being written."""

STATE_BYTES: Final = 2 * STATE_FILE_BYTES
"""Both; part of `max_bytes`."""

ACCEPTED_RANGES_MAX: Final = 8192
"""Separate accepted ranges kept over all epochs: 160 KB of the state. A range beyond it is left pending, which
costs one resend; ranges that touch are one, so only a cloud that accepts every other block comes near it."""

LOST_RANGES_MAX: Final = 4096
"""Separate evicted ranges kept over all epochs, and ranges of the gaps that the cloud is told of: 30 KB of the
state each. What is kept between them (alarms, mostly) decides how many there are; near it, more telemetry is kept."""

LOST_RANGES_SHARE: Final = 8
"""One segment may take up to one eighth of the lost ranges that are left: then there are always some for the next."""

GAPS_MAX: Final = 512
"""Entries of the book of gaps: 20 KB of the state. More become fewer with wider times."""

GAPS_KEPT_MAX: Final = 64
"""Of them, those that the cloud has already. They are told again on each connection, in one frame, so that records
that came late after all are known here too."""

ENDS_MAX: Final = 4096
"""Segments whose end the state holds because the file after them is gone: 60 KB of the state. Any more are walked
through at the next start to find their end."""

STATE_INTERVAL_S: Final = 1.0
"""Accepted ranges are written at most this often (and before each trim): what a crash can cause to be sent again."""

QUEUE_BYTES_MAX: Final = 8 * 1024 * 1024
"""Entries that wait for the writer: four of the largest blocks. Over it `append` waits, which holds back its caller."""

TAIL_BYTES_MAX: Final = 4 * 1024 * 1024
"""The newest blocks, kept in memory: a reader that keeps up never reads the disk."""

OPEN_WAITS_S: Final = (0.2, 0.5, 1.0)
"""Before a start goes on without a segment that the disk does not read: one that is just coming up needs about that."""

READ_BYTES: Final = 1024 * 1024
"""One read of the disk: large enough that the system call does not count, small beside the gateway's memory."""

MARKS_PER_SEGMENT: Final = 64
"""Places of a segment kept in memory: a reader starts at most 1/64 of a file early; a full log of 2 GB costs 1 MB."""

KEY_RUNS_MAX: Final = 1024
"""Runs of publishers whose batch keys are known; those that were quiet the longest are forgotten first."""

KEY_RANGES_MAX: Final = 16
"""Separate ranges of counters known of one run; the lowest is forgotten first. A gap is a batch that was refused and
published again under a new key."""

HEADER_SHARE: Final = 8
"""A segment's header takes at most one eighth of it: the keys of quiet runs are left out before blocks have no room."""

CUT_FROM_BYTES: Final = 4096
"""A file's unused end is given back from one block of a usual file system on."""

RECENT_BLOCKS_MAX: Final = 4096
"""Blocks whose oldest record's time is known exactly: more than wait for an answer while the link is up; 400 KB."""

LINGER_TICK_S: Final = 0.001
"""The step in which the writer waits for more: the finest that event loops' timers keep."""


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How much the log may keep and how it writes."""

    max_bytes: Annotated[
        int,
        msgspec.Meta(
            ge=STATE_BYTES + SEGMENTS_MIN * SEGMENT_BYTES_MIN,
            description="All files of the log together never exceed this many bytes.",
        ),
    ] = 2_000_000_000
    segment_bytes: Annotated[
        int,
        msgspec.Meta(
            ge=SEGMENT_BYTES_MIN,
            le=1 << 30,
            description="Size of one segment file in bytes; space is given back by whole segments.",
        ),
    ] = 16 * 1024 * 1024
    evict: Annotated[
        bool,
        msgspec.Meta(description="Whether a full log lets the oldest telemetry go; else it refuses new messages."),
    ] = True
    retain_acked_bytes: Annotated[
        int,
        msgspec.Meta(ge=0, description="Segments that the cloud has are kept up to this many bytes, to send again."),
    ] = 0
    linger_max_ms: Annotated[
        float,
        msgspec.Meta(
            ge=0,
            le=100,
            description="Longest wait for more messages before a sync, in milliseconds; only while it pays.",
        ),
    ] = 2.0
