"""decode and resolve: from records to messages."""

from __future__ import annotations

import json
import uuid

import msgspec

from protocols.batch import BatchKey, RecordBatch
from protocols.codecs import CodecSpec
from protocols.ids import record_message_id
from protocols.messages import Anchor, Clock, ClockState, Origin
from protocols.metadata import encode_metadata
from protocols.shipment import (
    CLOCK_CORRECTED,
    CLOCK_UNSURE,
    KEYED,
    TIME_REPLACED,
    MessageBatch,
    Run,
    concat,
    decode_messages,
    encode_messages,
    pick,
    record_places,
    restrict,
)
from sync.registry import Alias, Blueprint, Device, Network, Registry, RegistryChange
from sync.resolve import Resolver

NOW = 1_770_000_000_000


def registry() -> Registry:
    made = Registry("p")
    made.apply(
        RegistryChange(
            "p",
            0,
            3,
            (
                Network("keyed", spec=CodecSpec(key_paths=("boot", "seq"))),
                Network("plain"),
                Network("hub", spec=CodecSpec(alias_path="id")),
                Network("clockless", spec=CodecSpec(time_unit="s", time_epoch="ago")),
            ),
            (Blueprint("pump"),),
            (
                Device(1, "s", "pump", (Alias("keyed", "serial", "a"),)),
                Device(2, "s", "pump", (Alias("plain", "serial", "b"), Alias("hub", "serial", "x"))),
                Device(3, "s", "pump", (Alias("clockless", "serial", "c"),)),
            ),
        )
    )
    return made


def records(*rows: tuple[str, str, object]) -> RecordBatch:
    """Rows of network, alias, payload."""
    origins = [Origin(network, "serial", alias, "up", "", "mqtt") for network, alias, _ in rows]
    unique = list(dict.fromkeys(origins))
    payloads = [row[2] if isinstance(row[2], bytes) else json.dumps(row[2]).encode() for row in rows]
    return RecordBatch(
        BatchKey(1, 1),
        Clock(1, 1, ClockState.SYNCHRONIZED),
        NOW,
        unique,
        [unique.index(origin) for origin in origins],
        list(range(len(rows))),
        payloads,
    )


def resolve(*batches: RecordBatch, first_seq: int = 10) -> MessageBatch:
    resolver = Resolver(registry())
    resolver.add(Run(4, 99, first_seq, sum(map(len, batches))), batches)
    return resolver.finish()


def test_known_unknown_and_undecodable_records_each_find_their_place() -> None:
    batch = resolve(
        records(("keyed", "a", {"boot": 1, "seq": 2, "t": 20.5, "time": NOW - 50}), ("plain", "nobody", {"t": 1})),
        records(("plain", "b", b"\x00"), ("nowhere", "b", {"t": 1}), ("plain", "b", {"t": 3, "time": 0})),
    )
    seen = sorted((m.event_time, m.device_id, m.alias, m.data, m.time) for m in batch.messages())
    assert seen == [
        (NOW - 50, 1, "a", {"boot": 1, "seq": 2, "t": 20.5}, NOW - 50),
        (NOW + 1, 0, "nobody", {"t": 1}, None),
        (NOW + 2, 2, "b", {"t": 3}, 0),
    ]
    assert sorted(batch.flags) == [0, KEYED, TIME_REPLACED]
    assert sorted((r.record, r.payload, r.detail.split(" ")[0]) for r in batch.rejects) == [
        (2, b"\x00", "not"),
        (3, b'{"t": 1}', "no"),
    ]
    kept = {batch.payloads[i] for i, message in enumerate(batch.messages()) if not message.device_id}
    assert kept == {b'{"t": 1}'}, "the inbox keeps the bytes of what is unknown, and only of that"


def test_a_reject_keeps_all_that_decoding_it_again_needs() -> None:
    batch = records(("plain", "b", {"t": 1}), ("plain", "b", b"?"))
    origins = [msgspec.structs.replace(origin, codec="json") for origin in batch.origins]
    (reject,) = resolve(msgspec.structs.replace(batch, origins=origins, metadata=[b"", b"m"])).rejects
    assert (reject.codec, reject.clock, reject.metadata, reject.late) == ("json", batch.clock, b"m", False)


def test_ids_come_from_the_record_or_from_the_key() -> None:
    one = resolve(records(("plain", "b", [{"v": 1}, {"v": 2}]), ("keyed", "a", {"boot": 1, "seq": 2})))
    ids = [uuid.UUID(message.id).bytes for message in one.messages()]
    assert ids[:2] == [record_message_id(99, 10, 0), record_message_id(99, 10, 1)]
    again = resolve(records(("keyed", "a", {"boot": 1, "seq": 2, "resent": True})), first_seq=500)
    assert again.ids == ids[2], "a device's resend carries the same message"


def test_a_payload_may_name_its_device() -> None:
    batch = resolve(records(("hub", "the hub", [{"id": "x", "v": 1}, {"id": "y", "v": 2}])))
    assert [(m.alias, m.device_id) for m in batch.messages()] == [("x", 2), ("y", 0)]


def test_batches_are_joined_cut_and_encoded_without_losing_a_row() -> None:
    first = resolve(records(("plain", "b", {"v": 0}), ("plain", "b", b"?"), ("plain", "b", {"v": 2})))
    second = resolve(records(("plain", "nobody", {"v": 3}), ("keyed", "a", {"v": 4})), first_seq=70)
    whole = decode_messages(encode_messages(concat([first, second])))
    assert sorted(m.data["v"] for m in whole.messages()) == [0, 2, 3, 4]
    places = record_places(whole.runs)
    seqs = {message.data["v"]: places[whole.record[i]][1] for i, message in enumerate(whole.messages())}
    assert seqs == {0: 10, 2: 12, 3: 70, 4: 71}
    cut = restrict(whole, [[Run(4, 99, 11, 2)], [Run(4, 99, 71, 1)]])
    assert sorted(m.data["v"] for m in cut.messages()) == [2, 4]
    assert [record_places(cut.runs)[r.record][1] for r in cut.rejects] == [11]
    assert {record_places(cut.runs)[place][1] for place in cut.record} == {12, 71}


BOOT_MS = 500_000
UNSET = Clock(7, 0, ClockState.UNSET)
ANCHORS = {7: [Anchor(7, BOOT_MS + 1_000, NOW, 25, "cloud")]}


def in_1970(*rows: tuple[str, str, object]) -> RecordBatch:
    """Rows of a boot whose clock was not set: received at BOOT_MS after 1970, then each 1 ms later."""
    return msgspec.structs.replace(records(*rows), clock=UNSET, base_ms=BOOT_MS)


def test_messages_of_an_unset_clock_are_filed_by_their_boots_anchor() -> None:
    resolver = Resolver(registry(), ANCHORS)
    given = in_1970(
        ("plain", "b", {"v": 0}),
        ("plain", "b", {"v": 1, "time": NOW - 5_000}),
        ("plain", "b", {"v": 2, "time": NOW + 10**9}),
        ("keyed", "a", {"v": 3, "boot": 1, "seq": 2}),
    )
    resolver.add(Run(4, 99, 10, 4), [given])
    batch = resolver.finish()
    seen = sorted(
        (m.data["v"], m.event_time, m.received_time, batch.flags[i], batch.time_error_ms[i])
        for i, m in enumerate(batch.messages())
    )
    assert seen == [
        (0, NOW - 1_000, BOOT_MS, CLOCK_CORRECTED, 26),
        (1, NOW - 5_000, BOOT_MS + 1, CLOCK_CORRECTED, None),
        (2, NOW - 998, BOOT_MS + 2, CLOCK_CORRECTED | TIME_REPLACED, 26),
        (3, NOW - 997, BOOT_MS + 3, CLOCK_CORRECTED | KEYED, 26),
    ], "the device's own time is judged by the corrected one, and has no bound; received stays raw"


def test_times_that_count_from_reception_are_filed_from_when_that_truly_was() -> None:
    batch = records(("clockless", "c", {"time": 60}), ("clockless", "c", {"v": 1}), ("clockless", "c", {"time": -301}))
    found = resolve(batch)
    assert found.event_time == [NOW - 60_000, NOW + 1, NOW + 2]
    assert found.time == [NOW - 60_000, None, NOW + 2 + 301_000]
    assert found.flags == [0, 0, TIME_REPLACED]  # too far ahead
    unset = msgspec.structs.replace(batch, base_ms=1000, clock=Clock(7, 0, ClockState.UNSET))
    resolver = Resolver(registry(), {7: [Anchor(7, 0, NOW, 20, "kernel")]})
    resolver.add(Run(4, 99, 10, 3), [unset])
    found = resolver.finish()
    assert found.event_time == [NOW + 1000 - 60_000, NOW + 1001, NOW + 1002]
    assert found.time_error_ms == [21, 21, 21]
    assert found.flags[0] == CLOCK_CORRECTED


def test_messages_of_an_unset_clock_without_an_anchor_say_so() -> None:
    for anchors in ({}, {8: ANCHORS[7]}):
        resolver = Resolver(registry(), anchors)
        resolver.add(Run(4, 99, 10, 1), [in_1970(("plain", "b", {"v": 0}))])
        batch = resolver.finish()
        assert (batch.event_time, batch.flags, batch.time_error_ms) == ([BOOT_MS], [CLOCK_UNSURE], [])


def test_a_synchronized_clock_is_taken_at_its_word() -> None:
    batch = records(("plain", "b", {"v": 0}))
    resolver = Resolver(registry(), {1: [Anchor(1, 0, 5, 25, "cloud")]})
    resolver.add(Run(4, 99, 10, 1), [batch])
    assert (resolver.finish().event_time, resolver.finish().flags) == ([NOW], [0])


def test_error_bounds_stay_with_their_rows() -> None:
    resolver = Resolver(registry(), ANCHORS)
    resolver.add(Run(4, 99, 10, 1), [records(("plain", "b", {"v": 0}))])
    resolver.add(Run(4, 99, 11, 2), [in_1970(("plain", "b", {"v": 1}), ("plain", "b", {"v": 2, "time": NOW - 9}))])
    resolver.add(Run(4, 99, 13, 1), [records(("plain", "b", {"v": 3}))])
    mixed = resolver.finish()
    plain = resolve(records(("plain", "b", {"v": 4}), ("plain", "b", {"v": 5})), first_seq=70)
    assert plain.time_error_ms == []
    whole = decode_messages(encode_messages(concat([plain, mixed, plain])))
    assert whole.time_error_ms == [None, None, None, 26, None, None, None, None]
    assert pick(whole, [3, 0]).time_error_ms == [26, None]
    cut = restrict(whole, [[], [], [Run(4, 99, 12, 1), Run(4, 99, 11, 1)], [], [Run(4, 99, 70, 1)]])
    assert [(m.data["v"], cut.time_error_ms[i]) for i, m in enumerate(cut.messages())] == [
        (1, 26),
        (2, None),
        (4, None),
    ]
    assert concat([plain, plain]).time_error_ms == []


def test_a_batch_from_before_there_were_error_bounds_is_read() -> None:
    batch = resolve(records(("plain", "b", {"v": 0})))
    old = msgspec.msgpack.decode(msgspec.msgpack.encode(batch))[:-1]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(old), type=MessageBatch) == batch


def test_what_was_said_beside_a_payload_stands_in_its_messages() -> None:
    batch = records(("plain", "b", {"t": 1}), ("plain", "b", {"t": 2}), ("plain", "b", {}), ("plain", "b", {"t": 4}))
    beside = [encode_metadata({"site": "quay", "note": 'a "b"'}), b"", encode_metadata({"x": "y"}), b"\xc1 no map"]
    resolver = Resolver(registry())
    resolver.add(Run(4, 99, 0, 4), [msgspec.structs.replace(batch, metadata=beside)])
    assert [json.loads(data) for data in resolver.finish().data] == [
        {"t": 1, "$metadata": {"site": "quay", "note": 'a "b"'}},
        {"t": 2},
        {"$metadata": {"x": "y"}},
        {"t": 4},
    ]
