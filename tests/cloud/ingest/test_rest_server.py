"""The REST server: what it records, what it answers, what it refuses."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from cloud.ingest.rest_server import MESSAGES_MAX, IngestMessage, RestServer
from protocols.block import open_block
from protocols.codecs import CodecSpec
from protocols.errors import LimitError
from protocols.limits import PAYLOAD_BYTES_MAX
from protocols.messages import Lane
from protocols.shipment import KEYED, MessageBatch, Run
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
    answers = await server.take(9, registry, sent)
    assert [answer.record for answer in answers] == [f"{77:016x}/{seq}" for seq in range(5)]
    assert [answer.device_known for answer in answers] == [True, False, True, False, True]
    assert [answer.rejected is not None for answer in answers] == [False, False, True, True, False]
    again = await server.take(9, registry, [message({"t": 6})])
    assert again[0].record == f"{77:016x}/5", "numbers of a source go on"
    batch = recorded.resolved(registry)
    assert sorted(m.data["t"] for m in batch.messages()) == [1, 2, 5, 6]
    assert sorted(reject.record for reject in batch.rejects) == [2, 3]


async def test_an_id_makes_sending_again_safe_and_a_time_files_the_message(registry: Registry) -> None:
    recorded = Recorded()
    server = RestServer(recorded, lambda: 77, lambda: NOW)
    await server.take(
        9, registry, [message({"v": 1}, id="mine", time="2026-02-02T02:40:00Z"), message({"v": 1}, id="b")]
    )
    await server.take(9, registry, [message({"v": 1}, id="mine", time=1_770_000_000)])
    batch = recorded.resolved(registry)
    ids = [batch.ids[16 * i : 16 * i + 16] for i in range(3)]
    assert ids[0] == ids[2] != ids[1]
    assert set(batch.flags) == {KEYED}
    assert batch.event_time[0] == batch.event_time[2] == 1_770_000_000_000


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "0 messages"),
        ([message({"v": 1})] * (MESSAGES_MAX + 1), f"allowed are 1 to {MESSAGES_MAX}"),
        ([message({"v": 1}), message({"v": "x" * PAYLOAD_BYTES_MAX})], "messages[1] has 262,"),
        ([message({"v": "x" * 100_000})] * 11, "the limit is 983,040"),
        ([message({"v": 1}), message({"v": 1}, alias="a" * 129)], "messages[1].alias is longer than 128 bytes"),
        ([message({"v": 1}), message({"v": 1}, alias="a\0")], "messages[1].alias holds the character U+0000"),
    ],
)
async def test_what_passes_a_limit_is_named_and_nothing_is_recorded(
    registry: Registry, messages: list[IngestMessage], said: str
) -> None:
    recorded = Recorded()
    with pytest.raises(LimitError) as caught:
        await RestServer(recorded, lambda: 77, lambda: NOW).take(9, registry, messages)
    assert said in caught.value.detail
    assert not recorded.blocks
