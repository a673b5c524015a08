"""What the edge bus promises beyond the contract: answers that wait for the recorder, strangers that do no harm."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest
import zmq

from protocols.batch import decode_records
from protocols.messages import DEFAULT_ROUTE
from protocols.shipment import MessageBatch, Run, Target, encode_messages
from sync.bus.contract import Bus, BusError, BusRefusedError, Delivery, TopicSpec
from sync.bus.zeromq import ZeroMqBus
from sync.bus.zeromq_hub import ZeroMqHub

EXAMPLES = Path(__file__).parents[2] / "examples"
TOPICS = [TopicSpec("inbound", ("recorder",), public=True), TopicSpec("resolved")]
ROOM = (1000, 100_000_000)


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/bus"


@pytest.fixture
async def hub(endpoint: str) -> AsyncIterator[ZeroMqHub]:
    hub = ZeroMqHub(TOPICS, endpoint=endpoint, lease_s=0.5)
    yield hub
    await hub.close()


@pytest.fixture
async def outside(endpoint: str) -> AsyncIterator[ZeroMqBus]:
    """A client as another process would have it: over the endpoint, without the hub's grant."""
    bus = ZeroMqBus.connect(endpoint)
    yield bus
    await bus.close()


async def fetch(bus: Bus, topic: str, channel: str) -> Sequence[Delivery]:
    reader = await bus.subscribe(topic, channel)
    return await asyncio.wait_for(reader.fetch(*ROOM), 20)


async def test_publish_waits_for_the_recorder(hub: ZeroMqHub, outside: ZeroMqBus) -> None:
    for publisher in (hub.connect(), outside):
        recorder = hub.connect()
        publishing = asyncio.ensure_future(publisher.publish("inbound", b"x"))
        (delivery,) = await fetch(recorder, "inbound", "recorder")
        assert not publishing.done()
        await delivery.ack()
        await asyncio.wait_for(publishing, 20)
        await recorder.close()


async def test_without_a_recorder_publish_says_so_at_its_deadline(hub: ZeroMqHub) -> None:
    with pytest.raises(BusError, match="no recorder reads inbound"):
        await hub.connect(publish_s=0.2).publish("inbound", b"x")
    # What failed is not delivered later: the publisher sends it again.
    reader = await hub.connect().subscribe("inbound", "recorder")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.fetch(*ROOM), 0.2)


async def test_a_recorder_that_does_not_answer_is_named(hub: ZeroMqHub) -> None:
    await hub.connect().subscribe("inbound", "recorder")
    with pytest.raises(BusError, match="recorder of inbound did not answer in time"):
        await hub.connect(publish_s=0.2).publish("inbound", b"x")


async def test_a_refusal_reaches_the_publisher_with_code_and_text(hub: ZeroMqHub, outside: ZeroMqBus) -> None:
    publishing = asyncio.ensure_future(outside.publish("inbound", b"x"))
    (delivery,) = await fetch(hub.connect(), "inbound", "recorder")
    await delivery.refuse("checksum", "the batch's CRC-32 does not match its body")
    with pytest.raises(BusRefusedError, match="does not match its body") as refused:
        await publishing
    assert refused.value.code == "checksum"


async def test_a_topic_that_nobody_counts_is_answered_at_once(hub: ZeroMqHub) -> None:
    await asyncio.wait_for(hub.connect().publish("resolved", b"x"), 5)


async def test_strangers_neither_record_nor_speak_for_the_gateway(hub: ZeroMqHub, outside: ZeroMqBus) -> None:
    with pytest.raises(BusRefusedError, match="the gateway itself is recorder of inbound"):
        await outside.subscribe("inbound", "recorder")
    with pytest.raises(BusRefusedError, match="resolved takes batches of the gateway itself only"):
        await outside.publish("resolved", b"x")
    await outside.subscribe("inbound", "watcher")  # to look on is allowed


async def test_bytes_that_are_no_frames_are_answered_and_disturb_nobody(hub: ZeroMqHub, endpoint: str) -> None:
    recorder = await hub.connect().subscribe("inbound", "recorder")
    publishing = asyncio.ensure_future(hub.connect().publish("inbound", b"good"))
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(endpoint)
        for parts, code in (
            ([b""], "malformed"),
            ([b"\x02\x91\xa5hello"], "version"),
            ([b"\x01not MessagePack"], "malformed"),
            ([b"\x01" + msgspec.msgpack.encode(["publish", "one", 2])], "malformed"),
            ([b"\x01" + msgspec.msgpack.encode(["publish", 1, "inbound", "live", None, 1000])], "malformed"),
            ([b"\x01" + msgspec.msgpack.encode(["hello"]), b"and more"], "malformed"),
            ([b"\x01" + b"x" * 100_000], "limit"),
            ([b"\x01" + msgspec.msgpack.encode(["hello", b"a guess"])], "forbidden"),
        ):
            await asyncio.to_thread(socket.send_multipart, parts)
            assert await asyncio.to_thread(socket.poll, 5000)
            answer = msgspec.msgpack.decode(socket.recv()[1:])
            assert (answer[0], answer[1]) == ("error", code)
    (delivery,) = await recorder.fetch(*ROOM)
    await delivery.ack()
    await publishing
    assert hub.counts.malformed == 7


async def test_a_client_outlives_the_hubs_restart(endpoint: str) -> None:
    gateway = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.contract.bus_hub", endpoint), stdout=asyncio.subprocess.PIPE
    )
    assert gateway.stdout is not None
    assert (await gateway.stdout.readline()).decode() == f"{endpoint}\n"
    outside = ZeroMqBus.connect(endpoint)
    watcher = await outside.subscribe("inbound", "watcher", ephemeral=True)
    publishing = [asyncio.ensure_future(outside.publish("inbound", b"%d" % i)) for i in range(3)]
    seen: list[bytes] = []
    while len(seen) < 3:
        seen += [delivery.data for delivery in await watcher.fetch(*ROOM)]
    gateway.kill()
    await gateway.wait()
    assert not any(publish.done() for publish in publishing)
    second = ZeroMqHub(TOPICS, endpoint=endpoint, lease_s=0.5)
    recorder = await second.connect().subscribe("inbound", "recorder")
    recorded: list[bytes] = []
    while len(recorded) < 3:
        for delivery in await asyncio.wait_for(recorder.fetch(*ROOM), 20):
            recorded.append(delivery.data)
            await delivery.ack()
    assert recorded == [b"0", b"1", b"2"]
    await asyncio.gather(*publishing)
    assert await asyncio.wait_for(watcher.fetch(*ROOM), 20)  # it reads again, by itself
    await outside.close()
    await second.close()


async def test_a_reader_whose_connection_ends_is_noticed_before_its_lease(endpoint: str) -> None:
    hub = ZeroMqHub([TopicSpec("inbound", public=True)], endpoint=endpoint, lease_s=60.0)
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(endpoint)
        frame = ["subscribe", 1, "inbound", "mine", False, 100, 1_000_000]
        await asyncio.to_thread(socket.send, b"\x01" + msgspec.msgpack.encode(frame))
        assert await asyncio.to_thread(socket.poll, 5000)
        heir = await hub.connect().subscribe("inbound", "mine")
    publisher = hub.connect()
    published: set[bytes] = set()
    received: set[bytes] = set()
    async with asyncio.timeout(20):
        while not published or received != published:
            published.add(data := b"%d" % len(published))
            await publisher.publish("inbound", data)
            for delivery in await heir.fetch(*ROOM):
                received.add(delivery.data)
                await delivery.ack()
    await hub.close()


async def test_an_endpoint_that_cannot_be_had_is_an_error_that_names_it(tmp_path: Path) -> None:
    holder = ZeroMqHub(TOPICS, endpoint="tcp://127.0.0.1:*")
    taken = holder.endpoint
    assert taken is not None
    with pytest.raises(BusError, match=f"cannot listen on {taken}: Address already in use"):
        ZeroMqHub(TOPICS, endpoint=taken)
    with pytest.raises(BusError, match="is longer than the 107 bytes"):
        ZeroMqHub(TOPICS, endpoint=f"ipc://{tmp_path}/{'x' * 120}")
    await holder.close()


async def test_example_publish_inbound(hub: ZeroMqHub, endpoint: str) -> None:
    reader = await hub.connect().subscribe("inbound", "recorder")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLES / "publish_inbound.py"), endpoint, "quay", "pump-7", stdout=asyncio.subprocess.PIPE
    )
    payloads = []
    for number in range(1, 4):
        (delivery,) = await asyncio.wait_for(reader.fetch(*ROOM), 20)
        batch = decode_records(delivery.data)
        assert batch.key == delivery.key
        assert batch.key.counter == number
        assert [(record.origin.network_id, record.origin.alias) for record in batch.records()] == [
            ("quay", "pump-7"),
            ("quay", "pump-7"),
        ]
        payloads += batch.payloads
        await delivery.ack()
    output, _ = await process.communicate()
    assert output.decode().splitlines() == ["batch 1: accepted", "batch 2: accepted", "batch 3: accepted"]
    assert payloads[:2] == [b'{"temperature":21}', b'{"pressure":101}']


async def test_example_read_resolved(hub: ZeroMqHub, endpoint: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLES / "read_resolved.py"), endpoint, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    data = encode_messages(one_message())
    publisher = hub.connect()

    async def publish_until_read() -> None:
        # An ephemeral channel gets what comes while it reads, and only its output tells that it does.
        while True:
            await publisher.publish("resolved", data)
            await asyncio.sleep(0.05)

    publishing = asyncio.ensure_future(publish_until_read())
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 20)
        assert line.decode() == 'demo:serial:bench-01 {"temperature":71.5}\n'
    finally:
        publishing.cancel()
        process.kill()
        await process.communicate()


@pytest.mark.parametrize("example", ["publish_inbound.py", "read_resolved.py"])
async def test_examples_say_how_they_are_called(example: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLES / example), "--help", stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(process.communicate(), 20)
    assert f"python examples/{example} [ENDPOINT" in said.decode()
    assert "Traceback" not in said.decode()


def one_message() -> MessageBatch:
    return MessageBatch(
        runs=[Run(1, 2, 3, 1)],
        targets=[Target("p", "demo", "serial", "bench-01", 4, "pump", "quay", DEFAULT_ROUTE, 5)],
        ids=bytes(16),
        record=[0],
        message_index=[0],
        target_index=[0],
        flags=[0],
        time=[None],
        received_time=[1],
        event_time=[1],
        data=[b'{"temperature":71.5}'],
        payloads=[b""],
        rejects=[],
    )
