"""What the gateway tells the cloud beside its blocks: anchors, losses, where its records stand."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from edge.anchors import Anchors
from edge.listeners.refusals import Refusals
from protocols.messages import Anchor, Gap
from sync.link.frames import RefusedSample, Span, Standing
from sync.link.limits import SAMPLES_MAX, SPANS_MAX
from sync.log.log import Log

CODES_MAX: Final = 64
"""Reasons for refusing that are counted; there are a dozen."""


class Refusing(Protocol):
    """Whoever turns devices' messages away: a listener."""

    @property
    def network_id(self) -> str: ...

    @property
    def refusals(self) -> Refusals: ...


class GatewayBooks:
    """The link's Books over the log, the anchors and the listeners."""

    def __init__(
        self,
        log: Log,
        anchors: Anchors,
        listeners: Sequence[Refusing],
        *,
        refused: Callable[[], Mapping[str, int]],
        true_ms: Callable[[], int],
        look_again: Callable[[], None],
    ) -> None:
        """`refused`: records that did not get into the log, by reason; `look_again`: there is more to send."""
        self._log = log
        self._anchors = anchors
        self._listeners = listeners
        self._refused = refused
        self._true_ms = true_ms
        self._look_again = look_again

    def greeted(self, server_time_ms: int, round_trip_ms: int) -> None:
        self._log.tell_gaps_again()
        self._anchors.note_cloud_time(server_time_ms, round_trip_ms)

    def probed(self, server_time_ms: int, round_trip_ms: int) -> None:
        self._anchors.note_probe(server_time_ms, round_trip_ms)

    def anchors(self) -> Sequence[Anchor]:
        return self._anchors.unkept()

    def anchors_kept(self, anchors: Sequence[Anchor]) -> None:
        self._anchors.kept(anchors)

    def gaps(self, limit: int) -> Sequence[Gap]:
        return self._log.gaps(limit)

    def gaps_kept(self, gaps: Sequence[Gap], has: Sequence[Span]) -> None:
        self._log.gaps_kept(gaps, [(span.epoch, span.first, span.end) for span in has])

    def standing(self) -> Standing:
        now_ms = self._true_ms()
        epochs = self._log.accounting().epochs
        return Standing(
            at_ms=now_ms,
            complete_ms=self._log.complete_ms(now_ms),
            ends=tuple((one.epoch, one.logged) for one in epochs if one.pending or one.epoch == self._log.epoch)[
                -SPANS_MAX:
            ],
            pending=_spans(self._log.pending()),
            in_flight=_spans(self._log.in_flight()),
            refused=tuple(sorted(self._refused().items()))[:CODES_MAX],
            refused_samples=tuple(self._samples()),
        )

    def holdings(self) -> Sequence[Span]:
        return _spans(self._log.holdings())

    def resend(self, spans: Sequence[Span]) -> None:
        for span in spans:
            self._log.resend(span.epoch, span.first, span.end)
        self._look_again()

    def _samples(self) -> list[RefusedSample]:
        """The newest few of all listeners, the newest first."""
        samples = [
            RefusedSample(one.time_ms, listener.network_id, one.user_name, one.code)
            for listener in self._listeners
            for one in list(listener.refusals.last)[-SAMPLES_MAX:]
        ]
        return heapq.nlargest(SAMPLES_MAX, samples, key=lambda sample: sample.at_ms)


def _spans(ranges: Sequence[tuple[int, int, int]]) -> tuple[Span, ...]:
    """The newest ones, where they are too many."""
    return tuple(Span(*one) for one in ranges[-SPANS_MAX:])
