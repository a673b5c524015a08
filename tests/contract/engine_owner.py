"""A process that runs the engines as the cloud does, for tests that kill it.

`python engine_owner.py DATA POSTGRES_PORT NATS_PORT` prints one JSON line when they are ready, and
ends in order on SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TextIO

from cloud.engines import Engines, EngineSettings
from tidegate import logs, loop
from tidegate.console import UserError


def say(stream: TextIO, line: str) -> None:
    stream.write(line + "\n")
    stream.flush()


async def main(stop: asyncio.Event) -> None:
    data_dir, postgres_port, nats_port = sys.argv[1:]
    settings = EngineSettings(data_dir=Path(data_dir), postgres_port=int(postgres_port), nats_port=int(nats_port))
    async with Engines(settings, lambda engine, text: say(sys.stderr, f"{engine} {text}")) as engines:
        ready = {"uid": os.getuid(), "database_url": engines.database_url, "nats_url": engines.nats_url}
        say(sys.stdout, json.dumps(ready))
        await engines.supervise(stop)


if __name__ == "__main__":
    logs.configure(level="info", as_json=True)
    try:
        loop.run(main)
    except UserError as error:
        say(sys.stderr, f"error: {error.message}\n  try: {error.remedy}")
        sys.exit(1)
