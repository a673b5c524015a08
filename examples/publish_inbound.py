"""A listener of your own: publishes readings to the gateway, and is answered once they are synced on its disk.

    python examples/publish_inbound.py ipc:///path/to/the/gateway/bus

Needs pyzmq and msgspec only; any language with ZeroMQ and MessagePack does. The bytes: docs/PROTOCOL.md.
"""

import secrets
import sys
import time
import zlib

import msgspec
import zmq

ANSWER_MS = 10_000  # the hub answers `failed` by then; what is not answered at all is sent again


def batch(key: list[int], readings: list[bytes]) -> bytes:
    """Readings of one device, received now, as a batch of records."""
    now_ms = time.time_ns() // 1_000_000
    clock = [secrets.randbits(63), now_ms - time.monotonic_ns() // 1_000_000, 2]  # boot, offset, synchronized
    origin = ["serial-line", "serial", "pump-7", "", "", "example", 0]  # network, alias key, alias, …, telemetry
    count = len(readings)
    body = msgspec.msgpack.encode([key, clock, now_ms, [origin], [0] * count, [0] * count, readings])
    return bytes([1]) + zlib.crc32(body).to_bytes(4, "little") + body


def publish(socket: "zmq.Socket[bytes]", counter: int, key: list[int], data: bytes) -> str:
    """`accepted`, or why not. Publishes again, under the same key, until there is an answer that is final."""
    while True:
        frame = ["publish", counter, "inbound", "live", key, ANSWER_MS]
        socket.send_multipart([bytes([1]) + msgspec.msgpack.encode(frame), data])
        while socket.poll(ANSWER_MS + 1000):
            answer, *words = msgspec.msgpack.decode(socket.recv()[1:])
            if answer == "accepted" and counter in words[0]:
                return "accepted"
            if answer == "refused" and words[0] == counter:
                return f"refused: {words[2]}"
            if answer == "failed" and words[0] == counter:
                time.sleep(1)  # not now: the gateway is starting, or its log is full
                break


def main() -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(sys.argv[1])
        run = secrets.randbits(63)  # with a counter, the key by which the gateway keeps each batch once
        for counter in range(1, 4):
            readings = [b'{"temperature":%d}' % (20 + counter), b'{"pressure":%d}' % (100 + counter)]
            key = [run, counter]
            print(f"batch {counter}: {publish(socket, counter, key, batch(key, readings))}")


if __name__ == "__main__":
    main()
