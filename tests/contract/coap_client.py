"""libcoap's `coap-client`, as Debian has it: under its own name, or with that of its TLS library."""

from __future__ import annotations

import asyncio
import shutil

from tests.edge.listeners.mqtt_world import ANSWER_S

NAMES = ("coap-client", "coap-client-notls", "coap-client-openssl")


def coap_client() -> str:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    assert found is not None, "coap-client is missing: apt-get install libcoap3-bin"
    return found


async def start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        coap_client(), "-B", str(int(ANSWER_S)), *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def said(*arguments: str) -> tuple[str, str]:
    """What it prints, and its errors, at its end."""
    process = await start(*arguments)
    async with asyncio.timeout(ANSWER_S):
        output, errors = await process.communicate()
    assert process.returncode == 0
    return output.decode(), errors.decode()
