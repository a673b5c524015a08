"""What can be set about the engines, and the limits of their supervision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import msgspec

Progress: TypeAlias = Callable[[str, str], None]
"""Called with an engine's name (POSTGRESQL or NATS) and one line on how far it is; the last line says where it is."""

POSTGRESQL: Final = "postgresql"
NATS: Final = "nats"

HOST: Final = "127.0.0.1"
"""Embedded engines listen here and nowhere else; whoever needs them from another machine runs engines of their own."""

PORTS_TRIED_MAX: Final = 100
"""Ports looked at above the configured one; if so many in a row are taken, something else is wrong."""

START_ATTEMPTS_MAX: Final = 5
"""Starts that may fail because somebody took the port, or the data, between our look and the engine's."""

RECOVERY_S_MAX: Final = 600.0
"""From start to ready while an engine says that it recovers: 2 GB of write-ahead log on a slow disk, ten times over."""

SILENT_S_MAX: Final = 60.0
"""An engine that takes connections and says nothing for so long is stopped or stuck; recovery answers at once."""

PING_S: Final = 10.0
"""Deadline of one question to an engine: a machine in full swing answers within."""

PROGRESS_EVERY_S: Final = 1.0

ORPHANS_LEAVE_S: Final = 10.0
"""PostgreSQL's backends see within seconds that their postmaster died; then they are ended."""

STOP_S_MAX: Final = 30.0
"""A stop that leaves nothing to recover; after it comes the one that is repaired by recovery."""

KILL_S_MAX: Final = 10.0
"""The second, rougher stop; after it comes SIGKILL."""

RESTART_DELAY_S: Final = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Waits before the tries to bring back an engine that died; the last one repeats without end, as what is in the way
(a full disk, a taken port) goes away without us."""

STEADY_S: Final = 60.0
"""An engine that ran so long before it died is brought back without the waits of earlier deaths."""

LOOK_EVERY_S: Final = 1.0
"""How often a process that does not own an engine tries to, and an owner looks at the size of its log."""

LOG_BYTES_MAX: Final = 8 * 1024 * 1024
"""An engine's log file; one older file of the same size is kept beside it."""


class EngineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """PostgreSQL and NATS: where they are, or, without a URL, where the embedded ones keep their data."""

    data_dir: Annotated[Path, msgspec.Meta(description="Directory of the embedded engines' data and logs.")]
    database_url: Annotated[
        str,
        msgspec.Meta(description="PostgreSQL 14 or later, postgresql://user:password@host/db; empty: an embedded one."),
    ] = ""
    nats_url: Annotated[
        str,
        msgspec.Meta(
            description="NATS with JetStream, nats://user:password@host:4222, or several with commas; empty: embedded."
        ),
    ] = ""
    postgres_port: Annotated[
        int, msgspec.Meta(ge=1, le=65_535, description="Embedded PostgreSQL's port, or the next free one.")
    ] = 7432
    nats_port: Annotated[
        int, msgspec.Meta(ge=1, le=65_535, description="Embedded NATS's port, or the next free one.")
    ] = 7422
    jetstream_bytes_max: Annotated[
        int, msgspec.Meta(ge=1 << 30, description="What embedded NATS may keep on disk, all streams together, bytes.")
    ] = 64 << 30
    reach_within_s: Annotated[
        float, msgspec.Meta(gt=0, le=3600, description="How long to wait at the start for engines given by URL.")
    ] = 30.0
