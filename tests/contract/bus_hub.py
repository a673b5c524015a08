"""A gateway's hub in a process of its own, to be killed: nobody records there.

python -m tests.contract.bus_hub ENDPOINT
"""

from __future__ import annotations

import asyncio
import sys

from sync.bus.contract import TopicSpec
from sync.bus.zeromq_hub import ZeroMqHub


async def main(endpoint: str) -> None:
    hub = ZeroMqHub([TopicSpec("inbound", ("recorder",), public=True)], endpoint=endpoint)
    sys.stdout.write(f"{hub.endpoint}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
