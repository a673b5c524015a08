"""Messages that go on to other devices keep their way through batches that are put together, cut and picked from."""

from __future__ import annotations

import msgspec

from cloud.model.attribute import Attribute
from cloud.model.forwarding import derived, ways_from
from protocols.ids import record_message_id
from protocols.shipment import (
    DERIVED,
    KEYED,
    LATE,
    Forward,
    MessageBatch,
    Misfit,
    Run,
    Target,
    concat,
    decode_messages,
    encode_messages,
    pick,
    restrict,
)
from sync.registry import Blueprint, Device, Parent, Registry, RegistryChange

MISFIT = Misfit("a", "type", "no", "1")


def batch(epoch: int, *parents: int, rows: int = 2) -> MessageBatch:
    """Each row goes to all parents, if there are any; its data says which one it is."""
    targets = [Target("p", "n", "serial", "a", device, "b", "s", {}, 1) for device in (epoch, *parents)]
    forwards = [
        tuple(Forward(place, "k", b'{"row":%d}' % row, b"", (MISFIT,)) for place in range(1, len(targets)))
        for row in range(rows)
    ]
    return MessageBatch(
        [Run(1, epoch, 0, rows)], targets, b"".join(record_message_id(epoch, row) for row in range(rows)),
        list(range(rows)), [0] * rows, [0] * rows, [KEYED | LATE] * rows, [None] * rows, [5] * rows,
        list(range(100, 100 + rows)), [b"{}"] * rows, [b""] * rows, [],
        forwards=forwards if parents else [],
        misfits=[(MISFIT,)] * rows if parents else [],
        current_only=[b'{"c":%d}' % row for row in range(rows)] if parents else [],
    )  # fmt: skip


def went(made: MessageBatch) -> list[tuple[int, int, bytes]]:
    """Device, event time and data."""
    devices = [made.targets[place].device_id for place in made.target_index]
    return list(zip(devices, made.event_time, made.data, strict=True))


def test_batches_are_put_together_cut_and_picked_from() -> None:
    whole = decode_messages(encode_messages(concat([batch(1), batch(2, 20, 21), batch(3, 30)])))
    assert went(derived(whole, range(6))) == [
        (20, 100, b'{"row":0}'), (21, 100, b'{"row":0}'), (20, 101, b'{"row":1}'), (21, 101, b'{"row":1}'),
        (30, 100, b'{"row":0}'), (30, 101, b'{"row":1}'),
    ]  # fmt: skip
    assert whole.current_only == [b"", b"", b'{"c":0}', b'{"c":1}', b'{"c":0}', b'{"c":1}']
    picked = pick(whole, [1, 5])
    assert (went(derived(picked, [0, 1])), picked.misfits) == ([(30, 101, b'{"row":1}')], [(), (MISFIT,)])
    cut = restrict(whole, [[], [Run(1, 2, 1, 1)], []])
    assert went(derived(cut, [0])) == [(20, 101, b'{"row":1}'), (21, 101, b'{"row":1}')]
    assert (cut.current_only, cut.current_of(0)) == ([b'{"c":1}'], b'{"c":1}')


def test_what_is_made_has_an_id_of_its_own_and_is_no_resend() -> None:
    made = derived(batch(2, 20, 21), [0, 1])
    ids = {made.ids[16 * i : 16 * i + 16] for i in range(4)}
    assert len(ids) == 4
    assert derived(batch(2, 20, 21), [0, 1]).ids == made.ids
    assert set(made.flags) == {DERIVED | LATE}
    assert made.misfits == [(MISFIT,)] * 4


def test_nothing_goes_where_no_relationship_is_declared() -> None:
    relationship = Attribute(
        "relationship", blueprint="pump", cardinality="N-N", forward={"t": "warmest", "m\\.x.y": "y"}
    )
    parents = tuple(Parent(device, key) for device, key in ((2, "pumps"), (2, "other"), (3, "pumps"), (9, "pumps")))
    registry = Registry("p")
    registry.apply(
        RegistryChange(
            "p",
            0,
            1,
            blueprints=(
                Blueprint("pump"),
                Blueprint("boat", attributes=msgspec.json.encode({"pumps": relationship}).decode()),
            ),
            devices=(
                Device(1, "s", "pump", parents=parents),
                Device(2, "s", "boat"),
                Device(3, "s", "pump"),
                Device(4, "s", "tank", parents=parents),
            ),
        )
    )
    (way,) = ways_from(registry, 1)
    assert (way.parent.id, way.key) == (2, "pumps")
    values = {"t": msgspec.Raw(b"1.50"), "m.x": msgspec.Raw(b'{"y":[1]}'), "z": msgspec.Raw(b"2")}
    assert way.forward(values, 4) == Forward(4, "pumps", b'{"y":[1],"warmest":1.50}')
    assert way.forward({"z": msgspec.Raw(b"2"), "t": msgspec.Raw(b"null")}, 4) is None
    assert ways_from(registry, 2) == []
    assert ways_from(registry, 4) == [], "it is no pump any more"
