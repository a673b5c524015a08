"""A reader in a process of its own, to be killed: fetches one batch, says so, and does not answer for it.

python -m tests.contract.bus_reader edge|cloud ADDRESS TOPIC CHANNEL
"""

from __future__ import annotations

import asyncio
import sys

from sync.bus.contract import Bus, TopicSpec
from sync.bus.jetstream import JetStreamBus
from sync.bus.zeromq import ZeroMqBus


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main(kind: str, address: str, topic: str, channel: str) -> None:
    bus: Bus
    if kind == "edge":
        bus = ZeroMqBus.connect(address)
    else:
        bus = await JetStreamBus.connect(address, [TopicSpec(topic, (channel,))], ack_wait_s=1.0)
    reader = await bus.subscribe(topic, channel)
    say("reads")
    (delivery,) = await reader.fetch(1, 1_000_000)
    say(delivery.data.decode())
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
