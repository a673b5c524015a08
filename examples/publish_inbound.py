"""A listener of your own: publishes readings to the gateway, and is answered once they are synced on its disk.

    python examples/publish_inbound.py [ENDPOINT [NETWORK [ALIAS]]]

Without arguments, as device bench-01 of the demo that `make run` starts.
Needs pyzmq and msgspec only; any language with ZeroMQ and MessagePack does. The bytes: docs/PROTOCOL.md.
"""

import contextlib
import secrets
import sys
import time
import zlib
from pathlib import Path

import msgspec
import zmq

DEMO = ["ipc://.run/gateway/bus.sock", "demo", "bench-01"]
BOOT = int(Path("/proc/sys/kernel/random/boot_id").read_text().replace("-", ""), 16) & (2**63 - 1)
DEADLINE_S = 30.0  # for each batch
ANSWER_MS = 10_000  # the hub answers `failed` by then; what is not answered at all is sent again


def batch(network: str, alias: str, key: list[int], readings: list[bytes]) -> bytes:
    """Readings of one device, received now, as a batch of records."""
    now_ms = time.time_ns() // 1_000_000
    # The machine's boot, the wall clock minus the boot clock, and 1: where it is wrong, what the gateway learns of true
    # time corrects it. 2 says that it is synchronized, and is taken at its word.
    clock = [BOOT, now_ms - time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000, 1]
    origin = [network, "serial", alias, "", "", "example", 0]  # network, alias key, alias, …, telemetry
    count = len(readings)
    body = msgspec.msgpack.encode([key, clock, now_ms, [origin], [0] * count, [0] * count, readings])
    return bytes([1]) + zlib.crc32(body).to_bytes(4, "little") + body


def publish(socket: "zmq.Socket[bytes]", counter: int, key: list[int], data: bytes) -> str:
    """`accepted`, or why not. Publishes again, under the same key, until there is an answer that is final."""
    give_up = time.monotonic() + DEADLINE_S
    while time.monotonic() < give_up:
        frame = ["publish", counter, "inbound", "live", key, ANSWER_MS]
        socket.send_multipart([bytes([1]) + msgspec.msgpack.encode(frame), data])
        while (left_s := give_up - time.monotonic()) > 0 and socket.poll(int(1000 * min(left_s, ANSWER_MS / 1000 + 1))):
            answer, *words = msgspec.msgpack.decode(socket.recv()[1:])
            if answer == "accepted" and counter in words[0]:
                return "accepted"
            if answer == "refused" and words[0] == counter:
                return f"refused: {words[2]}"
            if answer == "failed" and words[0] == counter:
                time.sleep(1)  # not now: the gateway is starting, or its log is full
                break
    sys.exit(f"error: no gateway answered within {DEADLINE_S:.0f} s: is one running, and is this its bus?")


def main() -> None:
    if len(sys.argv) > 4 or "-h" in sys.argv or "--help" in sys.argv:
        sys.exit(__doc__)
    endpoint, network, alias = sys.argv[1:] + DEMO[len(sys.argv) - 1 :]
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(endpoint)
        run = secrets.randbits(63)  # with a counter, the key by which the gateway keeps each batch once
        for counter in range(1, 4):
            readings = [b'{"temperature":%d}' % (20 + counter), b'{"pressure":%d}' % (100 + counter)]
            key = [run, counter]
            print(f"batch {counter}: {publish(socket, counter, key, batch(network, alias, key, readings))}")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
