"""Any order of publishing, reading, answering, dying and waiting: every batch gets one answer, and that one is true."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sync.bus.contract import TopicSpec
from sync.bus.frames import Accepted, Deliver, Failed, Hello
from tests.sync.bus.harness import HubAtHand

PEERS = [b"r0", b"r1", b"r2"]
peers = st.sampled_from(PEERS)


class HubMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = HubAtHand(TopicSpec("inbound", ("recorder",), bytes_max=200, public=True))
        self.ticket = 0
        self.recorded: set[int] = set()
        self.answers: dict[int, str] = {}
        self.held: dict[bytes, list[Deliver]] = {peer: [] for peer in PEERS}
        self.reading: set[bytes] = set()

    @rule(size=st.integers(0, 60), deadline_ms=st.sampled_from([500, 3000, 60_000]))
    def publish(self, size: int, deadline_ms: int) -> None:
        self.ticket += 1
        self.world.publish(b"p", self.ticket, bytes(size), deadline_ms=deadline_ms)
        self._look()

    @rule(peer=peers, batches=st.integers(1, 4))
    def subscribe(self, peer: bytes, batches: int) -> None:
        self.held[peer] = []
        self.world.trust(peer)
        self.world.subscribe(peer, window=(batches, 100))
        self.reading.add(peer)
        self._look()

    @rule(peer=peers, which=st.integers(0, 3))
    def ack(self, peer: bytes, which: int) -> None:
        if which < len(self.held[peer]):
            frame = self.held[peer].pop(which)
            assert frame.key is not None
            self.recorded.add(frame.key.counter)
            self.world.ack(peer, frame.tag)
            self._look()

    @rule(peer=peers, which=st.integers(0, 3), delay_ms=st.sampled_from([0, 700]))
    def nak(self, peer: bytes, which: int, delay_ms: int) -> None:
        if which < len(self.held[peer]):
            self.world.nak(peer, self.held[peer].pop(which).tag, delay_ms)
            self._look()

    @rule(peer=peers)
    def leave(self, peer: bytes) -> None:
        self._end(peer)
        self.world.unsubscribe(peer)
        self._look()

    @rule(peer=peers)
    def vanish(self, peer: bytes) -> None:
        self._end(peer)
        self.world.hub.gone(peer, self.world.now)
        self._look()

    @rule(seconds=st.sampled_from([0.2, 1.0, 4.0]))
    def wait(self, seconds: float) -> None:
        for peer in self.reading:
            self.world.say(peer, Hello())
        self.world.passes(seconds)
        self._look()

    @invariant()
    def counts_close(self) -> None:
        counts = self.world.hub.counts
        unanswered = self.ticket - len(self.answers)
        assert counts.published == counts.accepted + counts.failed + counts.refused + unanswered

    @invariant()
    def accepted_means_recorded(self) -> None:
        assert {ticket for ticket, answer in self.answers.items() if answer == "accepted"} <= self.recorded

    def teardown(self) -> None:
        """A reader that reads gets what is left, and nothing stays without an answer."""
        for peer in PEERS:
            self.leave(peer)
        self.subscribe(PEERS[0], 4)
        self.wait(1.0)
        while self.held[PEERS[0]]:
            self.ack(PEERS[0], 0)
        assert set(self.answers) == set(range(1, self.ticket + 1))

    def _end(self, peer: bytes) -> None:
        self.held[peer] = []
        self.reading.discard(peer)

    def _look(self) -> None:
        for peer in PEERS:
            for frame, _ in self.world.inbox.pop(peer, []):
                if isinstance(frame, Deliver) and peer in self.reading:
                    self.held[peer].append(frame)
        for answer in self.world.heard(b"p"):
            assert isinstance(answer, Accepted | Failed)
            for ticket in answer.tickets if isinstance(answer, Accepted) else [answer.ticket]:
                assert ticket not in self.answers
                self.answers[ticket] = "accepted" if isinstance(answer, Accepted) else answer.code


TestHubMachine = HubMachine.TestCase
TestHubMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
