"""A reader of your own: prints every message that the gateway resolves, as it comes.

    python examples/read_resolved.py [ENDPOINT]

Without one, of the demo that `make run` starts.
Needs pyzmq and msgspec, and zstandard for the body of a message batch. The bytes: docs/PROTOCOL.md.
"""

import contextlib
import sys
import time

import msgspec
import zmq
import zstandard

DEMO = "ipc://.run/gateway/bus.sock"
DEADLINE_S = 10.0  # for the gateway's first answer
READER = 1  # our own number for this reader; one connection may have several
WINDOW = (256, 8 * 1024 * 1024)  # batches and bytes that the hub may send ahead of our answers


def say(socket: "zmq.Socket[bytes]", *frame: object) -> None:
    socket.send(bytes([1]) + msgspec.msgpack.encode(frame))


def show(data: bytes) -> None:
    """One line a message: the device's name on its network, and its attributes."""
    columns = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(data[1:]))
    targets, target_index, attributes = columns[1], columns[5], columns[10]
    for index, text in zip(target_index, attributes, strict=True):
        _project, network, alias_key, alias, *_ = targets[index]
        print(f"{network}:{alias_key}:{alias} {text.decode()}", flush=True)


def main() -> None:
    if len(sys.argv) > 2 or "-h" in sys.argv or "--help" in sys.argv:
        sys.exit(__doc__)
    give_up = time.monotonic() + DEADLINE_S
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(sys.argv[1] if len(sys.argv) > 1 else DEMO)
        session, heartbeat_s, next_hello = None, 0.5, 0.0
        while True:
            if session is None and time.monotonic() > give_up:
                sys.exit(f"error: no gateway answered within {DEADLINE_S:.0f} s: is one running, and is this its bus?")
            if time.monotonic() >= next_hello:
                say(socket, "hello")
                next_hello = time.monotonic() + heartbeat_s
            if not socket.poll(int(heartbeat_s * 1000)):
                continue
            head, *body = socket.recv_multipart()
            kind, *words = msgspec.msgpack.decode(head[1:])
            if kind == "welcome" and words[0] != session:  # the hub is new, or forgot us: subscribe (again)
                session, heartbeat_s = words[0], words[1] / 1000
                say(socket, "subscribe", READER, "resolved", "my-reader", True, *WINDOW)
            elif kind == "deliver":
                show(body[0])
                say(socket, "ack", READER, [words[1]])
            elif kind == "gap":
                print(f"too slow: missed {words[1]} batches", file=sys.stderr)
            elif kind in ("unsubscribed", "error"):
                sys.exit(f"{kind}: {words[-1]}")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
