"""Blocks as the recorder writes them, of devices as they are."""

from __future__ import annotations

import random
from collections.abc import Iterable

from protocols.batch import BatchKey, RecordBatch, encode_records
from protocols.block import encode_block, read_head
from protocols.messages import Clock, ClockState, Origin, Priority
from sync.link.frames import Hello, Span
from sync.link.regroup import FEATURE

BASE_MS = 1_700_000_000_000
CLOCK = Clock(1234, BASE_MS - 1_000_000, ClockState.SYNCHRONIZED)


def hello(*, features: tuple[str, ...] = (FEATURE,), revision: int = 0, epoch: int = 7) -> Hello:
    return Hello("tidegate-edge 0.1.0", epoch, 1234, 1_000_000, BASE_MS, revision, features)


def payload(rng: random.Random, device: int, seq: int, time_ms: int) -> bytes:
    """98 bytes of JSON, about."""
    return (
        f'{{"id":"pump-{device:03}","boot":3,"seq":{seq},"time":{time_ms},"temperature":{60 + rng.random() * 20:.1f},'
        f'"pressure":{2 + rng.random():.2f},"rpm":{1400 + rng.randrange(100)}}}'
    ).encode()


def blocks(
    count: int,
    records: int = 1,
    *,
    epoch: int = 7,
    first_seq: int = 0,
    devices: int = 20,
    seed: int = 1,
    priority: Priority = Priority.TELEMETRY,
) -> list[bytes]:
    """`count` blocks that follow each other, each one batch of `records`."""
    rng = random.Random(seed)
    run = rng.getrandbits(63)
    made: list[bytes] = []
    now_ms = BASE_MS
    for number in range(count):
        by = sorted(rng.randrange(devices) for _ in range(records))
        names = sorted(set(by))
        seq = first_seq + number * records
        deltas = sorted(rng.randrange(50) for _ in range(records))
        batch = RecordBatch(
            BatchKey(run, number),
            CLOCK,
            now_ms,
            [Origin("demo", "serial", f"pump-{name:03}", "up", "", "mqtt", priority) for name in names],
            [names.index(device) for device in by],
            deltas,
            [payload(rng, device, seq + i, now_ms + deltas[i]) for i, device in enumerate(by)],
        )
        made.append(
            encode_block(
                [encode_records(batch)],
                epoch=epoch,
                first_seq=seq,
                records=records,
                newest_ms=now_ms + deltas[-1],
                priority=priority,
            )
        )
        now_ms += rng.randrange(50, 250)
    return made


def large_blocks(count: int) -> list[bytes]:
    """Blocks of 1.9 MB that do not compress."""
    rng = random.Random(1)
    origin = Origin("demo", "serial", "camera-1", "up", "", "mqtt")
    made: list[bytes] = []
    for seq in range(0, 8 * count, 8):
        batches = [
            encode_records(
                RecordBatch(BatchKey(1, seq + i), CLOCK, BASE_MS, [origin], [0], [0], [rng.randbytes(240_000)])
            )
            for i in range(8)
        ]
        made.append(
            encode_block(batches, epoch=7, first_seq=seq, records=8, newest_ms=BASE_MS, priority=Priority.TELEMETRY)
        )
    return made


def spans(made: Iterable[bytes]) -> list[Span]:
    heads = [read_head(block) for block in made]
    return [Span(head.epoch, head.first_seq, head.end_seq) for head in heads]
