"""What is shown of the gateway: its parts looked at, and what was seen of its messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from edge.listeners.refusals import Refused
from edge.status.accounting import Accounting, Parts, accounting, oldest_pending_ms, refused_records
from edge.status.latest import LatestValues
from edge.status.rates import Rates
from edge.status.rejects import Rejections, Rejects
from edge.status.tail import Tail
from protocols.shipment import MessageBatch
from sync.link.status import LinkState

SAMPLE_S = 1.0


class MessageView:
    """What the resolver shows to everything local. Bounded, and all of it in memory."""

    def __init__(self) -> None:
        self.latest = LatestValues()
        self.rejects = Rejects()
        self.tail = Tail()
        self.onlookers: list[Callable[[MessageBatch, Sequence[str]], None]] = []

    def add(self, batch: MessageBatch, listeners: Sequence[str]) -> None:
        self.rejects.add(batch, listeners)
        self.latest.add(batch, listeners)
        self.tail.offer(batch, listeners)
        for look in self.onlookers:
            look(batch, listeners)

    @property
    def is_watching(self) -> bool:
        return self.tail.has_clients

    def add_refused(self, listener: str, network: str, refused: Refused) -> None:
        self.tail.offer_refused(listener, network, refused)


class GatewayView:
    """The whole of it, for the HTTP API."""

    def __init__(self, parts: Parts, messages: MessageView) -> None:
        self.parts = parts
        self.messages = messages
        self.rates = Rates()
        self.is_stopping = False

    async def sample(self) -> None:
        """Once a second, until cancelled."""
        while True:
            log = self.parts.log.accounting()
            self.rates.sample(
                self.parts.clock.true_ms(),
                logged=log.logged,
                accepted=log.accepted,
                pending=log.pending,
                refused=sum(refused_records(self.parts.recorder, self.parts.collector).values()),
                oldest_pending_ms=oldest_pending_ms(self.parts, log.oldest_pending_ms),
            )
            await asyncio.sleep(SAMPLE_S)

    def accounting(self) -> Accounting:
        return accounting(self.parts, backlog_peak=self.rates.backlog_peak)

    def rejections(self) -> Rejections:
        return self.messages.rejects.all([listener.refusals for listener in self.parts.listeners])

    def not_ready(self) -> list[str]:
        """Why devices cannot be served; empty: they can. The link is not required: that is what the log is for."""
        if self.is_stopping:
            return ["stopping"]
        reasons = [
            f"listener {listener.name} does not listen"
            for listener in self.parts.listeners
            if not listener.is_listening
        ]
        if self.parts.recorder.trouble:
            reasons.append(f"the log takes nothing: {self.parts.recorder.trouble}")
        return reasons

    @property
    def is_link_up(self) -> bool:
        return self.parts.link.status.state is LinkState.UP
