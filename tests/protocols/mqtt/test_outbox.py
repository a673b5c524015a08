"""What a session has to send: in order, within its window, once."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from protocols.mqtt.outbox import SEND_WINDOW, WAITING_MAX, Message, Outbox, Sending
from protocols.mqtt.packets import Publish, decode_ack, decode_publish
from protocols.mqtt.properties import In
from protocols.mqtt.wire import PUBREL, V5, V311, remaining_length


def sending(text: str, qos: int = 1, expires_ms: int = 0) -> Sending:
    return Sending(Message("t", text.encode(), qos, False, expires_ms=expires_ms), qos)


def payloads(found: list[Sending]) -> list[str]:
    return [each.message.payload.decode() for each in found]


def test_a_full_outbox_takes_nothing_and_loses_nothing() -> None:
    outbox = Outbox()
    assert all(outbox.offer(sending(str(number))) for number in range(WAITING_MAX))
    assert not outbox.offer(sending("too many"))
    out, _ = outbox.take(65_535, 0)
    assert len(out) == SEND_WINDOW
    assert outbox.acknowledge(out[0].packet_id) is out[0]
    assert outbox.offer(sending("fits now"))
    assert not Outbox().offer(Sending(Message("t", b"x" * 2_000_000, 1), 1))


def test_what_expired_is_given_apart_and_takes_no_window() -> None:
    outbox = Outbox()
    for number in range(3):
        outbox.offer(sending(str(number), expires_ms=100 if number < 2 else 0))
    out, expired = outbox.take(1, 100)
    assert (payloads(out), payloads(expired)) == (["2"], ["0", "1"])


def test_an_answer_of_the_other_kind_changes_nothing() -> None:
    outbox = Outbox()
    outbox.offer(sending("1", 1))
    outbox.offer(sending("2", 2))
    (one, two), _ = outbox.take(10, 0)
    assert outbox.receive(one.packet_id) is None
    assert outbox.acknowledge(two.packet_id) is None
    assert outbox.complete(two.packet_id) is None
    assert outbox.receive(two.packet_id) is two
    assert outbox.receive(two.packet_id) is two  # said twice, released twice
    assert outbox.complete(two.packet_id) is two
    assert outbox.complete(two.packet_id) is None


def test_the_expiry_that_is_left_is_told_to_mqtt_5_alone() -> None:
    made = sending("1", 0, expires_ms=10_500)
    packet = made.encode(V5, 4_000)
    assert decode_publish(packet[0], packet[2:], V5, In.SERVER_PUBLISH).properties.message_expiry_s == 7
    packet = made.encode(V311, 4_000)
    assert decode_publish(packet[0], packet[2:]) == Publish("t", b"1")


class OutboxMachine(RuleBasedStateMachine):
    """A client that answers as it likes, loses its connection, and a server that is restarted from what it kept."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox()
        self.kept: dict[int, Sending] = {}
        """On disk, by number."""
        self.offered = 0
        self.had: dict[int, list[str]] = {1: [], 2: []}
        """What the client took as new messages, by QoS."""
        self.known: dict[int, str] = {}
        """Packet identifiers of QoS 2 that the client holds."""
        self.unanswered: list[Publish] = []
        self.released: list[int] = []

    @rule(qos=st.integers(1, 2))
    def offer(self, qos: int) -> None:
        made = sending(str(self.offered), qos)
        if self.outbox.offer(made):
            self.kept[made.number] = made
            self.offered += 1

    @rule(window=st.integers(1, 4))
    def send(self, window: int) -> None:
        out, _ = self.outbox.take(window, 0)
        for each in out:
            packet = each.encode(V311, 0)
            self.hear(decode_publish(packet[0], packet[2:]))

    def hear(self, publish: Publish) -> None:
        text = publish.payload.decode()
        if publish.qos == 1:
            if not publish.dup:
                self.had[1].append(text)
        elif publish.packet_id not in self.known:
            self.known[publish.packet_id] = text
            self.had[2].append(text)
        self.unanswered.append(publish)

    @precondition(lambda self: self.unanswered)
    @rule(place=st.integers(0, 100))
    def answer(self, place: int) -> None:
        publish = self.unanswered.pop(place % len(self.unanswered))
        if publish.qos == 1:
            done = self.outbox.acknowledge(publish.packet_id)
            assert done is not None
            del self.kept[done.number]
        else:
            assert self.outbox.receive(publish.packet_id) is not None
            self.released.append(publish.packet_id)

    @precondition(lambda self: self.released)
    @rule(place=st.integers(0, 100))
    def complete(self, place: int) -> None:
        packet_id = self.released.pop(place % len(self.released))
        del self.known[packet_id]
        done = self.outbox.complete(packet_id)
        assert done is not None
        del self.kept[done.number]

    @rule(is_restarted=st.booleans())
    def reconnect(self, is_restarted: bool) -> None:
        if is_restarted:
            self.outbox = Outbox()
            for number in sorted(self.kept):
                self.outbox.restore(self.kept[number])
        self.unanswered.clear()
        self.released.clear()
        again: list[int] = []
        for packet in self.outbox.again(V311, 0):
            found = remaining_length(packet, 1)
            assert found is not None
            body = packet[found[1] :]
            if packet[0] == PUBREL:
                self.released.append(decode_ack(PUBREL, body, V311).packet_id)
            else:
                publish = decode_publish(packet[0], body)
                assert publish.dup
                again.append(int(publish.payload))
                self.hear(publish)
        assert again == sorted(again)

    @invariant()
    def everything_comes_once_and_in_order(self) -> None:
        for had in self.had.values():
            assert had == sorted(set(had), key=int)
        assert len(self.outbox) == len(self.kept)

    def teardown(self) -> None:
        self.reconnect(False)
        while len(self.outbox):
            self.send(4)
            while self.unanswered:
                self.answer(0)
            while self.released:
                self.complete(0)
        assert sorted(self.had[1] + self.had[2], key=int) == [str(number) for number in range(self.offered)]


TestOutbox = OutboxMachine.TestCase
TestOutbox.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
