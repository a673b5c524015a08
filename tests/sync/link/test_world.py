"""A seeded world: the two state machines, a wire that loses, cuts and damages, a cloud that forgets to answer. Whatever
happens, every block is accepted in the end, once in effect, and the credit is never exceeded.

Connections are as over TCP: frames of one direction keep their order, and when the connection breaks, what was on the
way is lost. Between connections, blocks repeat and change their order.
"""

from __future__ import annotations

import functools
import heapq
import random
from collections.abc import Callable

import pytest

from protocols.block import check_block, read_head
from protocols.errors import WireError
from protocols.messages import Lane
from sync.link import frames
from sync.link.cloud_end import CloudEnd
from sync.link.errors import LinkError
from sync.link.frames import CommandProgress, Credit, Hello, ProbeAnswer, RegistryAsk, Span, Welcome
from sync.link.gateway_end import GatewayEnd
from sync.link.limits import CREDIT_BYTES_MIN, Deadlines
from sync.link.protocol import BlockRefused, Shipped
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
        self.connect()

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
        while self.log.waiting:
            self.now_s, _, action = heapq.heappop(self.events)
            assert self.now_s < REAL_END, f"{len(self.log.waiting)} blocks are still waiting"
            action()


class Wire:
    """One connection with its two ends."""

    def __init__(self, world: World) -> None:
        self.world = world
        rng = world.rng
        self.open = True
        features = rng.choice([hello().features, ()])
        self.gateway = GatewayEnd(hello(features=features), now_s=world.now_s, deadlines=DEADLINES)
        self.cloud = CloudEnd(now_s=world.now_s, deadlines=DEADLINES)
        self.credit = rng.choice([CREDIT_BYTES_MIN, 2 * CREDIT_BYTES_MIN])
        self.fault = rng.choice(["none", "cut", "mute", "hang", "damage", "refuse"])
        self.free_at = {"up": 0.0, "down": 0.0}  # when the wire has carried what it was given
        self.rewind_at = 0.0
        if self.fault == "cut":
            world.later(rng.uniform(0.0, 5.0), self.cut)
        self.flush()
        self.tick()

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
                    self.cloud.greet("demo", "quay-1", Credit(self.credit), BASE_MS)
                case Shipped():
                    assert self.cloud.in_flight_bytes <= self.credit
                    if self.fault == "mute" and self.world.rng.random() < 0.2:
                        self.world.count("answer forgotten")
                    else:
                        self.world.later(self.world.rng.uniform(0.0, 2.0), functools.partial(self.store, event))
                case RegistryAsk() | CommandProgress():
                    raise AssertionError("nobody said that")

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
                case ProbeAnswer():
                    pass
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
        while not due and self.gateway.room().bytes_max:
            before = self.world.log.at
            taken = self.world.log.next(self.world.rng.randint(1, 40))
            if not taken:
                return
            lane = self.world.rng.choice(list(Lane))
            if not self.gateway.fits(lane, sum(map(len, taken))):
                self.world.log.at = before
                return
            self.gateway.ship(lane, taken, self.world.now_s)
            assert self.gateway.window.in_flight_bytes <= self.credit

    def tick(self) -> None:
        if not self.open:
            return
        try:
            self.cloud.tick(self.world.now_s)
            wake_s = self.gateway.tick(self.world.now_s)
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
    assert repeated > 0
