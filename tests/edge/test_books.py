"""What the gateway tells of its log, anchors and listeners, over a log on a simulated disk."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from edge.anchors import Anchors
from edge.books import GatewayBooks
from edge.listeners.refusals import Refusals, Refused
from protocols.messages import ClockState, Gap, GapKind
from sync.link.frames import RefusedSample, Span
from sync.link.limits import SAMPLES_MAX
from sync.log.log import Log
from tests.edge.listeners.memory_bus import SetClock
from tests.edge.test_anchors import NOW, MemoryFile
from tests.sync.log.making import START_MS, entry, opened
from tests.sync.log.simulated_disk import SimulatedDisk


class Listener:
    def __init__(self, network_id: str) -> None:
        self.network_id = network_id
        self.refusals = Refusals(network_id)

    def refuse(self, at_ms: int, code: str, user_name: str) -> None:
        self.refusals.add(Refused(at_ms, code, "no", "127.0.0.1", user_name, b""), now_s=0.0)


class Site:
    def __init__(self, log: Log) -> None:
        self.log = log
        clock = SetClock()
        clock.now_state = ClockState.UNSET
        self.anchors = Anchors(MemoryFile(), clock)
        self.listeners = [Listener("quay"), Listener("yard")]
        self.refused: dict[str, int] = {}
        self.looked = 0
        self.books = GatewayBooks(
            log,
            self.anchors,
            self.listeners,
            refused=lambda: self.refused,
            true_ms=lambda: START_MS + 60_000,
            look_again=self._look,
        )

    def _look(self) -> None:
        self.looked += 1

    async def add(self, count: int) -> None:
        for number in range(count):
            await self.log.append([entry(self.log.accounting().logged + number)])


@contextlib.asynccontextmanager
async def at_site() -> AsyncIterator[Site]:
    async with opened(SimulatedDisk()) as log:
        yield Site(log)


async def test_standing_names_what_waits_and_what_is_in_flight_and_since_when_all_is_here() -> None:
    async with at_site() as site:
        empty = site.books.standing()
        assert (empty.ends, empty.pending, empty.in_flight) == ((), (), ())
        assert empty.complete_ms == empty.at_ms == START_MS + 60_000, "nothing waits"
        await site.add(10)
        epoch = site.log.epoch
        site.log.accept(epoch, 2, 4)
        site.log.sending(epoch, 0, 1)
        said = site.books.standing()
        assert said.ends == ((epoch, 10),)
        assert said.pending == (Span(epoch, 0, 2), Span(epoch, 4, 10))
        assert said.in_flight == (Span(epoch, 0, 1),)
        assert said.complete_ms <= START_MS
        site.log.accept(epoch, 0, 10)
        assert site.books.standing().ends == ((epoch, 10),), "the epoch that is written is named while nothing waits"


async def test_what_was_refused_is_told_by_reason_with_the_newest_few_samples() -> None:
    async with at_site() as site:
        site.refused = {"log-full": 3, "limit": 1}
        for number in range(SAMPLES_MAX):
            site.listeners[0].refuse(1_000 + number, "malformed", f"pump-{number}")
        site.listeners[1].refuse(1_000_000, "credentials", "")
        said = site.books.standing()
        assert said.refused == (("limit", 1), ("log-full", 3))
        assert len(said.refused_samples) == SAMPLES_MAX
        assert said.refused_samples[0] == RefusedSample(1_000_000, "yard", "", "credentials")
        assert said.refused_samples[1].alias == f"pump-{SAMPLES_MAX - 1}"
        assert RefusedSample(1_000, "quay", "pump-0", "malformed") not in said.refused_samples, "the oldest one"


async def test_anchors_are_told_until_they_are_kept_and_again_to_each_cloud() -> None:
    async with at_site() as site:
        assert site.books.anchors() == ()
        site.books.greeted(NOW, 40)
        (anchor,) = site.books.anchors()
        assert anchor.origin == "cloud"
        site.books.anchors_kept([anchor])
        assert site.books.anchors() == ()
        site.books.probed(NOW, 30)
        assert site.books.anchors() == ()
        site.books.greeted(NOW, 40)
        assert site.books.anchors() == (anchor,)


async def test_gaps_are_told_and_what_the_cloud_has_after_all_is_accepted() -> None:
    async with at_site() as site:
        await site.add(4)
        epoch = site.log.epoch
        segment = site.log._catalog.last()
        assert segment is not None
        site.log._catalog.lose(GapKind.DAMAGED, segment, [(1, 3)], now_ms=START_MS)
        (gap,) = site.books.gaps(10)
        assert isinstance(gap, Gap)
        assert (gap.epoch, gap.first_seq, gap.end_seq, gap.kind) == (epoch, 1, 3, GapKind.DAMAGED)
        site.books.gaps_kept([gap], [Span(epoch, 1, 2)])
        assert (site.log.where(epoch, 1), site.log.where(epoch, 2)) == ("accepted", "damaged")
        assert site.books.gaps(10) == []
        site.books.greeted(NOW, 40)
        assert site.books.gaps(10), "told again on a new connection, as the cloud may have it by now"


async def test_what_the_cloud_has_lost_is_pending_again_and_looked_for() -> None:
    async with at_site() as site:
        await site.add(4)
        epoch = site.log.epoch
        site.log.accept(epoch, 0, 3)
        assert site.books.holdings() == (Span(epoch, 0, 3),)
        site.books.resend([Span(epoch, 1, 2)])
        assert [site.log.where(epoch, seq) for seq in range(4)] == ["accepted", "logged", "accepted", "logged"]
        assert site.looked == 1
