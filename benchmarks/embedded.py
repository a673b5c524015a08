"""An embedded PostgreSQL for what is measured on a database alone."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from cloud.db.database import Database
from cloud.engines import Engines, EngineSettings
from cloud.engines.settings import POSTGRESQL


@contextlib.asynccontextmanager
async def embedded_database() -> AsyncIterator[Database]:
    """Without any table; gone with the block."""
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as directory:
        Path(directory).chmod(0o755)  # PostgreSQL runs under another user
        settings = EngineSettings(data_dir=Path(directory))
        async with Engines(settings, lambda part, text: None, names=(POSTGRESQL,)) as engines:
            database = await Database.connect(engines.database_url)
            try:
                yield database
            finally:
                await database.close()
