"""The REST server: what it records, what it answers, what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from cloud.ingest.messages import MESSAGES_MAX, IngestMessage, RefusedError, payload_row, rows_of
from cloud.ingest.rest_server import IngestResult, RestServer
from protocols.block import open_block
from protocols.codecs import CodecSpec
from protocols.limits import PAYLOAD_BYTES_MAX
from protocols.messages import Lane
from protocols.shipment import KEYED, MessageBatch, Run
from sync.bus.contract import BusError
from sync.registry import Alias, Device, Network, Registry, RegistryChange
from sync.resolve import Resolver

NOW = 1_770_000_000_000


class Recorded:
    """Takes blocks as the receiver does."""

    def __init__(self) -> None:
        self.blocks: list[tuple[int, bytes]] = []

    async def accept(self, source_id: int, lane: Lane, blocks: Sequence[bytes]) -> None:
        self.blocks += [(source_id, block) for block in blocks]

    def resolved(self, registry: Registry) -> MessageBatch:
        resolver = Resolver(registry)
        for source_id, block in self.blocks:
            head, batches = open_block(block)
            resolver.add(Run(source_id, head.epoch, head.first_seq, head.records), batches)
        return resolver.finish()


@pytest.fixture
def registry() -> Registry:
    made = Registry("p")
    networks = (
        Network("n", spec=CodecSpec(key_paths=("boot", "seq"))),
        Network("hub", spec=CodecSpec(alias_path="id")),
    )
    devices = (Device(1, "s", "b", (Alias("n", "serial", "a"), Alias("hub", "serial", "a"))),)
    made.apply(RegistryChange("p", 0, 1, networks, devices=devices))
    return made


def message(data: object, **fields: object) -> IngestMessage:
    return msgspec.convert(
        {"network_id": "n", "alias": "a", "data": msgspec.Raw(msgspec.json.encode(data)), **fields}, IngestMessage
    )


async def take(server: RestServer, registry: Registry, messages: Sequence[IngestMessage]) -> list[IngestResult]:
    return (await server.take(9, registry, rows_of(registry, messages))).results


async def test_each_message_is_one_record_and_its_answer_says_what_became_of_it(registry: Registry) -> None:
    recorded = Recorded()
    server = RestServer(recorded, lambda: 77, lambda: NOW)
    sent = [
        message({"t": 1}),
        message({"t": 2}, alias="unknown"),
        message(3),
        message({"t": 4}, network_id="nowhere"),
        message({"t": 5, "id": "a"}, network_id="hub", alias="the hub"),
    ]
    answers = await take(server, registry, sent)
    assert [answer.record for answer in answers] == [f"{77:016x}/{seq}" for seq in range(5)]
    assert [answer.device_known for answer in answers] == [True, False, True, False, True]
    assert [answer.reason is not None for answer in answers] == [False, False, True, True, False]
    assert [answer.state for answer in answers] == ["accepted", "accepted", "rejected", "rejected", "accepted"]
    again = await take(server, registry, [message({"t": 6})])
    assert again[0].record == f"{77:016x}/5", "numbers of a source go on"
    batch = recorded.resolved(registry)
    assert sorted(m.data["t"] for m in batch.messages()) == [1, 2, 5, 6]
    assert sorted(reject.record for reject in batch.rejects) == [2, 3]


async def test_an_id_makes_sending_again_safe_and_a_time_files_the_message(registry: Registry) -> None:
    recorded = Recorded()
    server = RestServer(recorded, lambda: 77, lambda: NOW)
    await take(server, registry, [message({"v": 1}, id="mine", time="2026-02-02T02:40:00Z"), message({"v": 1}, id="b")])
    await take(server, registry, [message({"v": 1}, id="mine", time=1_770_000_000)])
    batch = recorded.resolved(registry)
    ids = [batch.ids[16 * i : 16 * i + 16] for i in range(3)]
    assert ids[0] == ids[2] != ids[1]
    assert set(batch.flags) == {KEYED}
    assert batch.event_time[0] == batch.event_time[2] == 1_770_000_000_000


async def test_a_payload_of_any_codec_is_recorded_as_it_came(registry: Registry) -> None:
    """With an id or a time, too: then they stand around it."""
    recorded = Recorded()
    server = RestServer(recorded, lambda: 77, lambda: NOW)
    csv = b"boot,v\n1,2\n1,3\n"
    rows = [
        payload_row(registry, "n", "serial", "a", csv, codec="csv"),
        payload_row(registry, "n", "serial", "a", b'{"boot":1,"seq":7}'),
        payload_row(registry, "n", "serial", "a", csv, codec="csv", id_="mine", time="2026-02-02T02:40:00Z"),
        *rows_of(
            registry, [msgspec.convert({"network_id": "n", "alias": "a", "payload_base64": "/w=="}, IngestMessage)]
        ),
    ]
    answers = (await server.take(9, registry, rows)).results
    assert [answer.state for answer in answers] == ["accepted"] * 3 + ["rejected"]
    (_, block), *_ = recorded.blocks
    assert open_block(block)[1][0].payloads[:2] == [csv, b'{"boot":1,"seq":7}']
    batch = recorded.resolved(registry)
    assert [m.data.get("v") for m in batch.messages()] == [2, 3, None, 2, 3]
    assert [flags == KEYED for flags in batch.flags] == [False, False, True, True, True]
    assert batch.event_time == [NOW] * 3 + [1_770_000_000_000] * 2
    assert batch.rejects[0].payload == b"\xff"


async def test_requests_that_come_together_share_a_block_and_each_gets_its_own_answers(registry: Registry) -> None:
    recorded = Recorded()
    server = RestServer(recorded, lambda: 77, lambda: NOW)
    sent = [[message({"t": n})] * (n + 1) for n in range(20)]
    answers = await asyncio.gather(*(take(server, registry, messages) for messages in sent))
    assert len(recorded.blocks) < 5
    named = [answer.record for part in answers for answer in part]
    assert named == [f"{77:016x}/{seq}" for seq in range(210)]
    assert [len(part) for part in answers] == list(range(1, 21))


async def test_what_cannot_be_made_durable_is_told_to_all_who_wait_and_later_ones_go_on(registry: Registry) -> None:
    class Down(Recorded):
        down = True

        async def accept(self, source_id: int, lane: Lane, blocks: Sequence[bytes]) -> None:
            if self.down:
                raise BusError("no quorum")
            await super().accept(source_id, lane, blocks)

    recorded = Down()
    server = RestServer(recorded, lambda: 77, lambda: NOW)
    told = await asyncio.gather(
        *(take(server, registry, [message({"t": n})]) for n in range(3)), return_exceptions=True
    )
    assert [str(each) for each in told] == ["no quorum"] * 3
    recorded.down = False
    (answer,) = await take(server, registry, [message({"t": 4})])
    assert answer.record == f"{77:016x}/3", "numbers that nobody knows the fate of are not used again"


@pytest.mark.parametrize(
    ("messages", "field", "said"),
    [
        ([], "body", "0 messages"),
        ([message({"v": 1})] * (MESSAGES_MAX + 1), "body", f"allowed are 1 to {MESSAGES_MAX}"),
        ([message({"v": 1}), message({"v": "x" * PAYLOAD_BYTES_MAX})], "messages[1]", "262,"),
        ([message({"v": "x" * 100_000})] * 11, "body", "1,100,"),
        ([message({"v": 1}), message({"v": 1}, alias="a" * 129)], "messages[1].alias", "longer than 128 bytes"),
        ([message({"v": 1}), message({"v": 1}, alias="a\0")], "messages[1].alias", "holds the character U+0000"),
        ([IngestMessage("n", "a")], "messages[0].data", "is missing"),
        ([message({"v": 1}, payload_text="1")], "messages[0].data", "give one of"),
        ([message({"v": 1}, codec="csv")], "messages[0].codec", "goes with payload"),
        ([IngestMessage("n", "a", payload_text="1", codec="presence")], "messages[0].codec", "no codec is called"),
        ([IngestMessage("n", "a", payload_text="1", codec="envelope")], "messages[0].codec", "no codec is called"),
        ([IngestMessage("n", "a", payload_base64="?")], "messages[0].payload_base64", "is not base64"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(
    registry: Registry, messages: list[IngestMessage], field: str, said: str
) -> None:
    with pytest.raises(RefusedError) as caught:
        rows_of(registry, messages)
    assert caught.value.field == field
    assert said in caught.value.detail
