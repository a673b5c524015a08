"""The hub's rules, one by one, by a clock that is turned by hand."""

from __future__ import annotations

from typing import TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.messages import Lane
from sync.bus.channel import QUEUE_BYTES_MAX
from sync.bus.contract import TopicSpec
from sync.bus.frames import (
    Accepted,
    Deliver,
    Error,
    Failed,
    Gap,
    Hello,
    HubFrame,
    Publish,
    Refused,
    Subscribed,
    Unsubscribed,
    Welcome,
    decode_client_frame,
)
from sync.bus.hub import CHANNEL_IDLE_S, CHANNELS_MAX, PEER_READERS_MAX, PEERS_MAX, PUBLICATIONS_MAX, PUBLISH_S_MAX
from tests.sync.bus.harness import HubAtHand

Frame = TypeVar("Frame", bound=HubFrame)


@pytest.fixture
def world() -> HubAtHand:
    return HubAtHand(
        TopicSpec("inbound", ("recorder",), bytes_max=10_000, public=True),
        TopicSpec("pair", ("left", "right"), public=True),
        TopicSpec("resolved"),
    )


def only(frames: list[HubFrame], kind: type[Frame]) -> Frame:
    (frame,) = frames
    assert isinstance(frame, kind)
    return frame


def test_accepted_follows_the_recorders_ack_and_not_the_delivery(world: HubAtHand) -> None:
    recorder = world.recorder()
    world.publish(b"p", 1, b"x")
    ((delivered, data),) = world.deliveries(recorder)
    assert (data, delivered.redelivered) == (b"x", False)
    assert world.heard(b"p") == []
    world.ack(recorder, delivered.tag)
    assert world.heard(b"p") == [Accepted([1])]


def test_all_channels_that_count_must_acknowledge(world: HubAtHand) -> None:
    for name in (b"left", b"right"):
        world.trust(name)
        world.subscribe(name, name.decode(), topic="pair")
    world.publish(b"p", 1, b"x", topic="pair")
    for name, answer in ((b"left", []), (b"right", [Accepted([1])])):
        ((delivered, _),) = world.deliveries(name)
        world.ack(name, delivered.tag)
        assert world.heard(b"p") == answer


def test_acks_of_one_frame_are_answered_in_one(world: HubAtHand) -> None:
    recorder = world.recorder()
    for ticket in (1, 2, 3):
        world.publish(b"p", ticket, b"x")
    world.ack(recorder, *(frame.tag for frame, _ in world.deliveries(recorder)))
    assert world.heard(b"p") == [Accepted([1, 2, 3])]


def test_an_ack_that_comes_twice_or_of_nothing_changes_nothing(world: HubAtHand) -> None:
    recorder = world.recorder()
    world.publish(b"p", 1, b"x")
    ((delivered, _),) = world.deliveries(recorder)
    world.ack(recorder, delivered.tag, delivered.tag, 999)
    world.ack(recorder, delivered.tag)
    world.ack(recorder, delivered.tag, reader=77)
    assert world.heard(b"p") == [Accepted([1])]


def test_without_a_reader_a_batch_waits_until_its_deadline(world: HubAtHand) -> None:
    world.publish(b"p", 1, b"first", deadline_ms=2000)
    world.publish(b"p", 2, b"second", deadline_ms=4000)
    world.passes(1.9)
    assert world.heard(b"p") == []
    world.passes(0.2)
    assert only(world.heard(b"p"), Failed) == Failed(1, "no-reader", "no recorder reads inbound")
    assert [state.waiting for state in world.hub.channels() if state.topic == "inbound"] == [1]
    # What failed is not delivered: its publisher publishes it again.
    world.trust(b"recorder")
    world.subscribe(b"recorder")
    assert [data for _, data in world.deliveries(b"recorder")] == [b"second"]


def test_a_deadline_is_granted_up_to_a_limit(world: HubAtHand) -> None:
    world.publish(b"p", 1, b"x", deadline_ms=10**9)
    world.passes(PUBLISH_S_MAX + 0.2)
    assert only(world.heard(b"p"), Failed).ticket == 1


def test_a_reader_that_hangs_is_named_and_its_late_ack_is_of_no_effect(world: HubAtHand) -> None:
    recorder = world.recorder()
    world.publish(b"p", 1, b"x", deadline_ms=1000)
    ((delivered, _),) = world.deliveries(recorder)
    world.passes(1.2)
    assert only(world.heard(b"p"), Failed) == Failed(1, "deadline", "recorder of inbound did not answer in time")
    world.ack(recorder, delivered.tag)
    assert world.heard(b"p") == []
    assert world.hub.counts.published == world.hub.counts.accepted + world.hub.counts.failed == 1


def test_a_full_topic_says_so_and_has_room_again_after_an_ack(world: HubAtHand) -> None:
    recorder = world.recorder()
    world.publish(b"p", 1, b"x" * 20_000)  # larger than the bound, and alone: it must be able to pass
    world.publish(b"p", 2, b"x")
    assert only(world.heard(b"p"), Failed).code == "full"
    ((delivered, _),) = world.deliveries(recorder)
    world.ack(recorder, delivered.tag)
    world.publish(b"p", 3, b"x")
    assert only(world.heard(b"p"), Accepted) == Accepted([1])
    assert len(world.deliveries(recorder)) == 1


def test_small_batches_fill_a_topic_by_their_number(world: HubAtHand) -> None:
    for ticket in range(PUBLICATIONS_MAX + 1):
        world.publish(b"p", ticket, b"")
    assert only(world.heard(b"p"), Failed).code == "full"


def test_refusal_reaches_the_publisher_and_ends_the_batch(world: HubAtHand) -> None:
    recorder = world.recorder()
    world.publish(b"p", 1, b"x")
    ((delivered, _),) = world.deliveries(recorder)
    world.refuse(recorder, delivered.tag, "checksum", "CRC-32 does not match")
    assert world.heard(b"p") == [Refused(1, "checksum", "CRC-32 does not match")]
    world.unsubscribe(recorder)
    world.subscribe(recorder)
    assert world.deliveries(recorder) == []


def test_nak_comes_again_first_or_after_its_delay(world: HubAtHand) -> None:
    recorder = world.recorder()
    for ticket, data in ((1, b"1"), (2, b"2")):
        world.publish(b"p", ticket, data)
    (first, _), (second, _) = world.deliveries(recorder)
    world.nak(recorder, first.tag)
    ((again, data),) = world.deliveries(recorder)
    assert (again.redelivered, data) == (True, b"1")
    world.nak(recorder, second.tag, delay_ms=1000)
    world.passes(0.9)
    world.say(recorder, Hello())
    assert world.deliveries(recorder) == []
    world.passes(0.2)
    assert [data for _, data in world.deliveries(recorder)] == [b"2"]


def test_a_dead_readers_batches_go_to_the_next_in_order(world: HubAtHand) -> None:
    world.recorder(b"first")
    for ticket in range(5):
        world.publish(b"p", ticket, b"%d" % ticket, deadline_ms=60_000)
    assert len(world.deliveries(b"first")) == 5
    heir = world.recorder(b"heir")
    for _ in range(6):
        world.passes(1.0)
        world.say(heir, Hello())
    assert [data for _, data in world.deliveries(heir)] == [b"0", b"1", b"2", b"3", b"4"]
    assert world.hub.counts.peers_lost == 1


def test_a_heartbeat_keeps_the_lease_and_the_session(world: HubAtHand) -> None:
    world.say(b"c", Hello())
    session = only(world.heard(b"c"), Welcome).session
    for _ in range(10):
        world.passes(1.0)
        world.say(b"c", Hello())
    assert {frame.session for frame in world.heard(b"c") if isinstance(frame, Welcome)} == {session}
    world.passes(5.5)
    world.say(b"c", Hello())
    assert only(world.heard(b"c"), Welcome).session != session


def test_time_in_which_the_hub_stood_still_ends_no_lease(world: HubAtHand) -> None:
    recorder = world.recorder()
    world.publish(b"p", 1, b"x", deadline_ms=60_000)
    ((delivered, _),) = world.deliveries(recorder)
    world.stands_still(30.0)
    world.ack(recorder, delivered.tag)
    assert world.heard(b"p") == [Accepted([1])]


def test_the_window_bounds_what_is_handed_out(world: HubAtHand) -> None:
    recorder = world.recorder(window=(2, 1000))
    for ticket in range(4):
        world.publish(b"p", ticket, b"x")
    deliveries = world.deliveries(recorder)
    assert len(deliveries) == 2
    world.ack(recorder, deliveries[0][0].tag)
    assert len(world.deliveries(recorder)) == 1
    narrow = HubAtHand(TopicSpec("inbound", ("recorder",), public=True))
    recorder = narrow.recorder(window=(100, 1000))
    for ticket in range(3):
        narrow.publish(b"p", ticket, b"x" * 400)
    (first, _), _ = narrow.deliveries(recorder)
    narrow.ack(recorder, first.tag)
    assert len(narrow.deliveries(recorder)) == 1


def test_others_hold_nobody_back_lose_the_oldest_and_are_told(world: HubAtHand) -> None:
    recorder = world.recorder()
    world.subscribe(b"tail", "tail", window=(1, 1000), ephemeral=True)
    world.heard(b"tail")
    size = 9_000
    count = QUEUE_BYTES_MAX // size + 11
    for ticket in range(count):
        world.publish(b"p", ticket, ticket.to_bytes(4, "big") * (size // 4))
        ((delivered, _),) = world.deliveries(recorder)
        world.ack(recorder, delivered.tag)
        assert world.heard(b"p") == [Accepted([ticket])]
    ((held, _),) = world.deliveries(b"tail")
    world.ack(b"tail", held.tag)
    (gap, _), (_, data) = world.inbox.pop(b"tail")
    assert isinstance(gap, Gap)
    assert int.from_bytes(data[:4], "big") == gap.missed + 1
    assert gap.missed >= 10


def test_a_channel_that_does_not_count_waits_for_its_reader_for_a_while(world: HubAtHand) -> None:
    world.subscribe(b"mine", "mine", topic="resolved")
    world.unsubscribe(b"mine")
    world.trust(b"gateway")
    world.publish(b"gateway", 1, b"kept", topic="resolved")
    world.heard(b"mine")
    world.subscribe(b"mine", "mine", topic="resolved")
    ((delivered, data),) = world.deliveries(b"mine")
    assert data == b"kept"
    world.ack(b"mine", delivered.tag)
    world.unsubscribe(b"mine")
    world.passes(CHANNEL_IDLE_S + 1)
    assert [state.channel for state in world.hub.channels() if state.topic == "resolved"] == []


def test_an_ephemeral_channel_ends_with_its_last_reader(world: HubAtHand) -> None:
    world.subscribe(b"a", "tail", topic="resolved", ephemeral=True)
    world.unsubscribe(b"a")
    assert [state.channel for state in world.hub.channels() if state.topic == "resolved"] == []


def test_what_strangers_may_not_do(world: HubAtHand) -> None:
    world.publish(b"s", 1, b"x", topic="resolved")
    assert only(world.heard(b"s"), Refused).code == "forbidden"
    world.publish(b"s", 2, b"x", topic="nowhere")
    assert only(world.heard(b"s"), Refused).code == "unknown-topic"
    world.subscribe(b"s", "recorder")
    assert only(world.heard(b"s"), Unsubscribed).code == "forbidden"
    world.subscribe(b"s", "any", topic="nowhere")
    assert only(world.heard(b"s"), Unsubscribed).code == "unknown-topic"
    world.say(b"s", Hello(b"a guess"))
    refusal, _ = world.heard(b"s")
    assert isinstance(refusal, Error)
    assert refusal.code == "forbidden"


def test_a_channel_that_counts_is_not_ephemeral(world: HubAtHand) -> None:
    world.trust(b"a")
    world.subscribe(b"a", "recorder", ephemeral=True)
    assert only(world.heard(b"a"), Unsubscribed).code == "conflict"


def test_ephemeral_readers_of_one_name_each_get_everything(world: HubAtHand) -> None:
    for peer in (b"a", b"b"):
        world.subscribe(peer, "tail", ephemeral=True)
    world.publish(b"p", 1, b"x")
    for peer in (b"a", b"b"):
        assert [data for _, data in world.deliveries(peer)] == [b"x"]


def test_what_one_channel_refused_no_other_gets(world: HubAtHand) -> None:
    world.trust(b"left")
    world.subscribe(b"left", "left", topic="pair")
    world.publish(b"p", 1, b"bad", topic="pair")
    ((delivered, _),) = world.deliveries(b"left")
    world.refuse(b"left", delivered.tag, "checksum", "")
    world.trust(b"right")
    world.subscribe(b"right", "right", topic="pair")
    assert world.deliveries(b"right") == []


def test_a_publish_without_its_batch_is_malformed(world: HubAtHand) -> None:
    world.say(b"s", Publish(1, "inbound", Lane.LIVE, None, 1000))
    assert only(world.heard(b"s"), Error).code == "malformed"
    world.say(b"s", Hello(), b"a batch where none belongs")
    assert only(world.heard(b"s"), Error).code == "malformed"


def test_counts_of_clients_readers_and_channels_are_bounded(world: HubAtHand) -> None:
    for number in range(PEER_READERS_MAX + 1):
        world.subscribe(b"greedy", "one", reader=number)
    assert isinstance(world.heard(b"greedy")[-1], Unsubscribed)
    for number in range(CHANNELS_MAX):
        world.subscribe(b"many", f"channel-{number}", topic="pair", reader=number)
    answers = world.heard(b"many")
    assert sum(isinstance(answer, Subscribed) for answer in answers) == CHANNELS_MAX - 2
    for number in range(PEERS_MAX):
        world.say(b"client-%d" % number, Hello())
    assert only(world.heard(b"client-%d" % (PEERS_MAX - 1)), Error).code == "limit"
    world.passes(6.0)
    world.say(b"late", Hello())
    assert only(world.heard(b"late"), Welcome)


def test_closing_fails_who_waits_and_who_comes(world: HubAtHand) -> None:
    world.publish(b"p", 1, b"x")
    world.hub.close()
    world.publish(b"p", 2, b"x")
    assert [(frame.ticket, frame.code) for frame in world.heard(b"p") if isinstance(frame, Failed)] == [
        (1, "closing"),
        (2, "closing"),
    ]


def test_a_publisher_that_is_gone_does_not_end_its_publication(world: HubAtHand) -> None:
    world.publish(b"p", 1, b"x")
    world.hub.gone(b"p", world.now)
    world.trust(b"recorder")
    world.subscribe(b"recorder")
    assert [data for _, data in world.deliveries(b"recorder")] == [b"x"]


@given(st.lists(st.binary(max_size=60), max_size=3))
def test_no_bytes_break_the_hub(parts: list[bytes]) -> None:
    world = HubAtHand(TopicSpec("inbound", ("recorder",), public=True))
    world.raw(b"s", parts)
    world.raw(b"s", [b"\x01" + part for part in parts])
    recorder = world.recorder()
    world.publish(b"p", 1, b"x")
    assert [data for _, data in world.deliveries(recorder)] == [b"x"]


@given(data=st.data())
def test_no_shape_of_a_frame_breaks_the_hub(data: st.DataObject) -> None:
    """Arrays that are nearly frames: right names, wrong fields."""
    scalar = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5) | st.binary(max_size=5)
    names = st.sampled_from(["hello", "publish", "subscribe", "ack", "nak", "refuse", "unsubscribe"])
    fields = data.draw(st.lists(scalar | st.lists(scalar, max_size=3), max_size=7))
    head = b"\x01" + msgspec.msgpack.encode([data.draw(names), *fields])
    world = HubAtHand(TopicSpec("inbound", ("recorder",), public=True))
    for parts in ([head], [head, b"data"]):
        world.raw(b"s", parts)
    recorder = world.recorder()
    world.publish(b"p", 1, b"x")
    assert b"x" in [batch for _, batch in world.deliveries(recorder)]


def test_frames_may_grow_at_their_end() -> None:
    head = b"\x01" + msgspec.msgpack.encode(["hello", b"", "a field of a later version"])
    assert decode_client_frame([head])[0] == Hello()


def test_a_delivery_carries_what_was_published(world: HubAtHand) -> None:
    recorder = world.recorder()
    world.publish(b"p", 9, b"x")
    (frame,) = world.heard(recorder)
    assert isinstance(frame, Deliver)
    assert frame.key is not None
    assert (frame.lane, frame.key.counter) == ("live", 9)
