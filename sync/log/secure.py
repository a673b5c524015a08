"""Makes what a killed process had under way as durable as what it had synced.

A write whose sync did not return, because the process was killed or the disk said no, may be found whole by the next
one in the system's memory; a power failure within the next half minute would take it back. So before such records count
as logged, and their batches as known, the same bytes are written and synced at the same place again. This is the one
exception from that a file whose sync failed is never written again: whatever of it reaches the disk is what should be
there already.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from sync.log.disk import Disk
from sync.log.settings import READ_BYTES


def secure(disk: Disk, path: Path, start: int, end: int) -> bool:
    """Bytes [start, end) of the file. False where the disk does not take them, or does not give them."""
    try:
        with contextlib.closing(disk.open(path)) as file:
            for at in range(start, end, READ_BYTES):
                file.write((disk.read(path, at, min(READ_BYTES, end - at)),), at)
    except OSError:
        return False
    return True
