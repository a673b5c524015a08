"""Tells the cloud what the gateway keeps beside its blocks, over one connection."""

from __future__ import annotations

import msgspec

from sync.link.frames import Anchors, Gaps, Holdings, ProbeAnswer, Resend, Standing, Welcome
from sync.link.gateway_end import GatewayEnd
from sync.link.limits import ANCHORS_MAX, GAPS_MAX, SPANS_MAX
from sync.link.ports import Books
from sync.link.protocol import Kept
from sync.link.status import LinkStatus


class Teller:
    """Between the gateway's books and its end of the link. Where one of the two ends keeps none, it says nothing."""

    def __init__(self, books: Books | None, end: GatewayEnd, status: LinkStatus) -> None:
        self._books = books
        self._end = end
        self._status = status
        self._stood: Standing | None = None
        self._stood_s = 0.0

    def greeted(self, welcome: Welcome, round_trip_s: float) -> None:
        """The first thing after WELCOME: nothing may be shipped before it returns."""
        if self._books is None:
            return
        self._books.greeted(welcome.server_time_ms, round(1000 * round_trip_s))
        self._status.keeps_books = self._end.books
        if self._end.books and (holdings := self._books.holdings()):
            self._end.say(Holdings(tuple(holdings)[-SPANS_MAX:]))

    def probed(self, answer: ProbeAnswer) -> None:
        if self._books is not None and self._end.round_trip_s is not None:
            self._books.probed(answer.time_ms, round(1000 * self._end.round_trip_s))

    def holds_back(self, now_s: float) -> bool:
        """Whether there are anchors that the cloud does not have: they are told, and no block may be shipped."""
        if self._books is None or not self._end.books:
            return False
        if self._end.is_telling(Anchors):
            return True
        anchors = self._books.anchors()
        if anchors:
            self._end.tell_anchors(anchors[:ANCHORS_MAX], now_s)
        return bool(anchors)

    def look(self, now_s: float) -> None:
        """Tells what came up since the last time: gaps, and how things stand; this at least as often as a probe goes,
        since it says what is complete by now."""
        if self._books is None or not self._end.books:
            return
        self._tell_gaps(now_s)
        standing = self._books.standing()
        timeless = msgspec.structs.replace(standing, at_ms=0, complete_ms=0)
        if timeless != self._stood or now_s >= self._stood_s + self._end.deadlines.probe_every_s:
            self._stood, self._stood_s = timeless, now_s
            self._end.say(standing)

    def kept(self, event: Kept, now_s: float) -> None:
        assert self._books is not None, "nothing was told"
        told = event.told
        if isinstance(told, Anchors):
            self._books.anchors_kept(told.anchors)
            self._status.anchors_told += len(told.anchors)
        else:
            self._books.gaps_kept(told.gaps, event.has)
            self._status.gaps_told += len(told.gaps)
            self._tell_gaps(now_s)

    def resend(self, event: Resend) -> None:
        if self._books is not None:
            self._books.resend(event.spans)

    def _tell_gaps(self, now_s: float) -> None:
        if self._books is not None and not self._end.is_telling(Gaps) and (gaps := self._books.gaps(GAPS_MAX)):
            self._end.tell_gaps(gaps, now_s)
