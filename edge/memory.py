"""How the gateway asks the system for memory."""

from __future__ import annotations

import ctypes
from typing import Final

_ARENA_MAX: Final = -8
"""malloc.h, M_ARENA_MAX."""


def share_one_arena() -> None:
    """To be called before there are threads. glibc gives each thread that allocates an arena of its own, and what is
    freed in one is of no use to another: threads that write, read and compress blocks in turn would hold the same
    buffers several times. Where the C library is another one, nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)
