"""A seeded world: the two state machines, a wire that loses, cuts and damages, a cloud that forgets to answer. Whatever
happens, every block is accepted in the end, once in effect, the credit is never exceeded, and where both ends keep
books no block comes before the anchors that there were when it was shipped.

Connections are as over TCP: frames of one direction keep their order, and when the connection breaks, what was on the
way is lost. Between connections, blocks repeat and change their order.
"""

from __future__ import annotations

import functools
import heapq
import random
from collections.abc import Callable, Sequence

import pytest

from protocols.block import check_block, read_head
from protocols.errors import WireError
from protocols.messages import Anchor, Gap, GapKind, Lane
from sync.link import frames
from sync.link.cloud_end import CloudEnd
from sync.link.errors import LinkError
from sync.link.frames import (
    FEATURE_BOOKS,
    Anchors,
    CommandProgress,
    Credit,
    Gaps,
    Hello,
    Holdings,
    ProbeAnswer,
    RegistryAsk,
    Resend,
    Span,
    Standing,
    Welcome,
)
from sync.link.gateway_end import GatewayEnd
from sync.link.limits import BOOKS_EVERY_S, CREDIT_BYTES_MIN, Deadlines
from sync.link.protocol import BlockRefused, Kept, Shipped, Told
from sync.link.status import LinkState, LinkStatus
from sync.link.teller import Teller
from tests.sync.link.blocks import BASE_MS, blocks, hello, spans

DEADLINES = Deadlines()
REAL_END = 20_000.0
"""Seconds of the world's time by which all must be done."""


class Log:
    """The gateway's log, as the sender sees it."""

    def __init__(self, made: list[bytes]) -> None:
        self.made = made
        self.waiting = {(head.epoch, head.first_seq): block for block in made for head in [read_head(block)]}
        self.at = 0

    def next(self, blocks_max: int) -> list[bytes]:
        taken: list[bytes] = []
        while self.at < len(self.made) and len(taken) < blocks_max:
            head = read_head(self.made[self.at])
            if (head.epoch, head.first_seq) in self.waiting:
                taken.append(self.made[self.at])
            self.at += 1
        return taken

    def accepted(self, span: Span) -> None:
        at = span.first
        while at < span.end:
            at = read_head(self.waiting.pop((span.epoch, at))).end_seq


class WorldBooks:
    """The gateway's books: anchors and gaps come up as the world goes on."""

    def __init__(self) -> None:
        self.made: list[Anchor] = []
        self.kept: set[Anchor] = set()
        self.lost: list[Gap] = []
        self.told: set[Gap] = set()
        self.has: list[Span] = []
        self.resent: list[Span] = []
        self.greetings = 0

    def greeted(self, server_time_ms: int, round_trip_ms: int) -> None:
        self.greetings += 1
        self.kept.clear()  # it may be another cloud

    def probed(self, server_time_ms: int, round_trip_ms: int) -> None:
        assert round_trip_ms >= 0

    def anchors(self) -> list[Anchor]:
        return [anchor for anchor in self.made if anchor not in self.kept]

    def anchors_kept(self, anchors: Sequence[Anchor]) -> None:
        self.kept.update(anchors)

    def gaps(self, limit: int) -> list[Gap]:
        return [gap for gap in self.lost if gap not in self.told][:limit]

    def gaps_kept(self, gaps: Sequence[Gap], has: Sequence[Span]) -> None:
        self.told.update(gaps)
        self.has += has

    def standing(self) -> Standing:
        return Standing(BASE_MS, BASE_MS, (), (), (), (("limit", len(self.lost)),), ())

    def holdings(self) -> list[Span]:
        return [Span(99, 0, 5)]

    def resend(self, spans: Sequence[Span]) -> None:
        self.resent += spans


class World:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now_s = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.ordinal = 0
        rng = self.rng
        made: list[bytes] = []
        for epoch in range(1, rng.randint(2, 4)):
            made += blocks(rng.randint(20, 120), rng.choice([1, 3, 40]), epoch=epoch, seed=seed)
        self.log = Log(made)
        self.stored: dict[tuple[int, int], bytes] = {}
        self.arrivals = 0
        self.connections = 0
        self.reach: dict[str, int] = {}
        self.books = WorldBooks()
        self.ours, self.theirs = rng.choice([(True, True), (True, True), (True, False), (False, True)])
        self.anchors: set[Anchor] = set()
        self.gaps: set[Gap] = set()
        """What the cloud has of them, durable."""
        for number in range(rng.randrange(5)):
            self.later(rng.uniform(0.0, 20.0), functools.partial(self.anchor, number))
            self.later(rng.uniform(0.0, 20.0), functools.partial(self.lose, number))
        self.connect()

    def anchor(self, number: int) -> None:
        self.books.made.append(Anchor(1, number, BASE_MS, 1, "cloud"))

    def lose(self, number: int) -> None:
        self.books.lost.append(Gap(99, number, number + 1, GapKind.EVICTED, 0, 0, BASE_MS))

    def count(self, what: str) -> None:
        self.reach[what] = self.reach.get(what, 0) + 1

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        self.ordinal += 1
        heapq.heappush(self.events, (self.now_s + delay_s, self.ordinal, action))

    def connect(self) -> None:
        self.connections += 1
        self.log.at = 0
        Wire(self)

    def run(self) -> None:
        while self.log.waiting or self.owes_books:
            self.now_s, _, action = heapq.heappop(self.events)
            assert self.now_s < REAL_END, f"{len(self.log.waiting)} blocks are still waiting"
            action()

    @property
    def owes_books(self) -> bool:
        return self.ours and self.theirs and bool(self.books.gaps(1) or self.books.anchors())


class Wire:
    """One connection with its two ends."""

    def __init__(self, world: World) -> None:
        self.world = world
        rng = world.rng
        self.open = True
        features: tuple[str, ...] = rng.choice([hello().features, ()])
        if world.ours:
            features += (FEATURE_BOOKS,)
        self.gateway = GatewayEnd(hello(features=features), now_s=world.now_s, deadlines=DEADLINES)
        self.cloud = CloudEnd(now_s=world.now_s, deadlines=DEADLINES)
        self.teller = Teller(world.books if world.ours else None, self.gateway, LinkStatus(LinkState.UP, 0))
        self.credit = self.random_credit()
        self.credit_bytes_max = self.credit.credit_bytes
        self.anchored: dict[int, set[Anchor]] = {}
        """For each request, the anchors there were."""
        self.fault = rng.choice(["none", "cut", "mute", "hang", "damage", "refuse"])
        self.free_at = {"up": 0.0, "down": 0.0}  # when the wire has carried what it was given
        self.rewind_at = 0.0
        if self.fault == "cut":
            world.later(rng.uniform(0.0, 5.0), self.cut)
        self.flush()
        self.tick()

    def random_credit(self) -> Credit:
        rng = self.world.rng
        return Credit(CREDIT_BYTES_MIN * rng.randint(1, 2), rng.choice([None, 0, CREDIT_BYTES_MIN]))

    def change_credit(self) -> None:
        if self.open:
            self.credit = self.random_credit()
            self.credit_bytes_max = max(self.credit_bytes_max, self.credit.credit_bytes)
            self.cloud.credit(self.credit)
            self.flush()
            self.world.later(self.world.rng.uniform(0.5, 5.0), self.change_credit)

    def cut(self) -> None:
        if self.open:
            self.open = False
            self.world.later(self.world.rng.uniform(0.1, 3.0), self.world.connect)

    def flush(self) -> None:
        for direction, end in (("up", self.gateway), ("down", self.cloud)):
            for data in end.take_outgoing():
                arrives = max(self.free_at[direction], self.world.now_s) + self.world.rng.uniform(0.001, 0.3)
                self.free_at[direction] = arrives
                self.world.later(arrives - self.world.now_s, functools.partial(self.deliver, direction, data))

    def deliver(self, direction: str, data: bytes) -> None:
        if not self.open or (self.fault == "hang" and self.world.rng.random() < 0.2 and self.hang()):
            return
        try:
            self.take_up(data) if direction == "up" else self.take_down(data)
            self.send()
        except LinkError as error:
            self.world.count(f"ended: {error.code}")
            self.cut()
        self.flush()

    def hang(self) -> bool:
        """From here on nothing gets through, and nobody is told."""
        self.fault = "hung"
        self.deliver = lambda direction, data: None  # type: ignore[method-assign]
        return True

    def take_up(self, data: bytes) -> None:
        if self.fault == "damage" and self.world.rng.random() < 0.3:
            data = self.damage(data)
        for event in self.cloud.receive(data, self.world.now_s, BASE_MS):
            match event:
                case Hello():
                    self.cloud.greet("demo", "quay-1", self.credit, BASE_MS, books=self.world.theirs)
                    self.change_credit()
                case Shipped():
                    assert self.cloud.in_flight_bytes <= self.credit_bytes_max
                    if self.gateway.books:
                        assert self.anchored[event.request] <= self.world.anchors
                    if self.fault == "mute" and self.world.rng.random() < 0.2:
                        self.world.count("answer forgotten")
                    else:
                        self.world.later(self.world.rng.uniform(0.0, 2.0), functools.partial(self.store, event))
                case Anchors() | Gaps() | Standing() | Holdings():
                    assert self.world.ours
                    assert self.world.theirs
                    if self.fault == "mute" and self.world.rng.random() < 0.2:
                        self.world.count("books forgotten")
                    else:
                        self.world.later(self.world.rng.uniform(0.0, 2.0), functools.partial(self.keep, event))
                case RegistryAsk() | CommandProgress():
                    raise AssertionError("nobody said that")

    def keep(self, told: Told) -> None:
        """The cloud's books: durable from here, even if the answer gets lost."""
        if not self.open:
            return
        match told:
            case Anchors():
                self.world.anchors.update(told.anchors)
                self.cloud.keep(told)
            case Gaps():
                self.world.gaps.update(told.gaps)
                self.cloud.keep(told, [Span(99, told.gaps[0].first_seq, told.gaps[0].end_seq)])
            case Holdings():
                self.cloud.resend(told.spans)
            case Standing():
                self.world.count("standing")
        self.flush()

    def damage(self, data: bytes) -> bytes:
        """Turns a bit in the last block of a frame: what a faulty memory would do, as TLS keeps it from the wire."""
        frame = frames.decode_frame(data)
        if not isinstance(frame, frames.Blocks):
            return data
        self.world.count("damaged")
        return data[:-3] + bytes((data[-3] ^ 1,)) + data[-2:]

    def store(self, shipped: Shipped) -> None:
        """The cloud's intake; the blocks are durable from here, even if the answer gets lost."""
        if not self.open:
            return
        whole: list[bytes] = []
        for place, block in enumerate(shipped.blocks):
            try:
                if self.fault == "refuse" and self.world.rng.random() < 0.1:
                    raise WireError("no room now")
                check_block(block)
                whole.append(block)
            except WireError as error:
                self.cloud.refuse(shipped.request, place, len(block), error.code, error.detail)
        for block in whole:
            self.world.arrivals += 1
            head = read_head(block)
            assert self.world.stored.setdefault((head.epoch, head.first_seq), block) == block
        if whole:
            self.cloud.accept(shipped.request, spans(whole), sum(map(len, whole)))
        self.flush()

    def take_down(self, data: bytes) -> None:
        for event in self.gateway.receive(data, self.world.now_s, BASE_MS):
            match event:
                case Span():
                    self.world.log.accepted(event)
                case BlockRefused():
                    self.world.count("refused")
                    self.rewind_at = self.world.now_s + 1.0
                    self.world.later(1.0, self.rewind)
                case Welcome():
                    self.world.count("welcome")
                    self.teller.greeted(event, 0.1)
                case Kept():
                    self.world.count(f"kept {type(event.told).__name__}")
                    self.teller.kept(event, self.world.now_s)
                case Resend():
                    self.teller.resend(event)
                case ProbeAnswer():
                    self.teller.probed(event)
                case _:
                    raise AssertionError("nobody said that")

    def rewind(self) -> None:
        if self.open and self.rewind_at:
            if self.gateway.idle:
                self.rewind_at = 0.0
                self.world.log.at = 0
                self.send()
                self.flush()
            else:
                self.world.later(0.5, self.rewind)

    def send(self) -> None:
        due = self.rewind_at and self.world.now_s >= self.rewind_at
        while not due and not self.teller.holds_back(self.world.now_s):
            room, lane = self.gateway.room(), self.world.rng.choice(list(Lane))
            bytes_max = room.bytes_max if lane is Lane.LIVE else room.backfill_bytes_max
            if not bytes_max:
                return
            before = self.world.log.at
            taken = self.world.log.next(self.world.rng.randint(1, 40))
            if not taken:
                return
            if not self.gateway.fits(lane, sum(map(len, taken))):
                self.world.log.at = before
                return
            self.anchored[len(self.anchored)] = set(self.world.books.made)
            self.gateway.ship(lane, taken, self.world.now_s)
            self.world.count(lane)
            window = self.gateway.window
            assert window.in_flight_bytes <= window.credit_bytes
            assert (
                window.backfill_credit_bytes is None
                or lane is Lane.LIVE
                or (window.backfill_in_flight_bytes <= window.backfill_credit_bytes)
            )

    def tick(self) -> None:
        if not self.open:
            return
        try:
            self.cloud.tick(self.world.now_s)
            wake_s = min(self.gateway.tick(self.world.now_s), self.world.now_s + BOOKS_EVERY_S)
            if self.gateway.welcome is not None:
                self.teller.look(self.world.now_s)
                self.send()
        except LinkError as error:
            self.world.count(f"ended: {error.code}")
            self.cut()
            return
        self.flush()
        self.world.later(max(wake_s - self.world.now_s, 0.001), self.tick)


@pytest.mark.parametrize("seed", range(60))
def test_every_block_is_accepted_in_the_end_whatever_happens_on_the_way(seed: int) -> None:
    world = World(seed)
    world.run()
    held = {(head.epoch, head.first_seq): block for block in world.log.made for head in [read_head(block)]}
    assert world.stored == held, "the cloud has what the log has, byte for byte"
    if not (world.ours and world.theirs):
        assert not world.anchors
        assert not world.gaps
    else:
        assert world.gaps.issuperset(world.books.lost)
        assert world.anchors.issuperset(world.books.made)
        assert bool(world.books.has) == bool(world.books.lost)


def test_the_worlds_reach_what_they_are_for() -> None:
    reach: dict[str, int] = {}
    repeated = 0
    for seed in range(60):
        world = World(seed)
        world.run()
        repeated += world.arrivals - len(world.stored)
        for what, times in world.reach.items():
            reach[what] = reach.get(what, 0) + times
    assert {"refused", "damaged", "answer forgotten", "ended: request"} <= set(reach)
    assert {"books forgotten", "standing", "kept Anchors", "kept Gaps", "live", "backfill"} <= set(reach)
    assert repeated > 0
