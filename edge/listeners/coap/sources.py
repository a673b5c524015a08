"""Who sends, by address: how much of it is taken, and what it has under way."""

from __future__ import annotations

from edge.listeners.coap.limits import SOURCES_MAX, TURNED_AWAY_PER_S


class Source:
    """One address, whatever its ports."""

    __slots__ = ("at_s", "observers", "tokens", "turned_away", "uploads", "waiting")

    def __init__(self, tokens: float, now_s: float) -> None:
        self.tokens = tokens
        """Datagrams that it may send at once."""
        self.at_s = now_s
        """When it was heard of last."""
        self.turned_away = 0.0
        """Answers to datagrams above its rate that it may still get."""
        self.waiting = 0
        self.uploads = 0
        self.observers = 0

    @property
    def is_idle(self) -> bool:
        return not (self.waiting or self.uploads or self.observers)


class Sources:
    def __init__(self, rate_max: int) -> None:
        """`rate_max`: datagrams a second of each address; 0: any. A second's worth may come at once."""
        self.total = 0
        """Addresses that were new, since the start."""
        self._rate_max = rate_max
        self._sources: dict[str, Source] = {}

    def __len__(self) -> int:
        return len(self._sources)

    def heard(self, host: str, now_s: float) -> Source:
        """A datagram came from it. The order is that of the last ones, so that the oldest stands first."""
        source = self._sources.pop(host, None)
        if source is None:
            self.total += 1
            self._make_room()
            source = Source(float(self._rate_max), now_s)
        else:
            passed_s = now_s - source.at_s
            source.at_s = now_s
            source.tokens = min(source.tokens + passed_s * self._rate_max, float(self._rate_max))
            source.turned_away = min(source.turned_away + passed_s * TURNED_AWAY_PER_S, float(TURNED_AWAY_PER_S))
        self._sources[host] = source
        return source

    def takes(self, source: Source) -> bool:
        """Whether the datagram is within its rate."""
        if not self._rate_max:
            return True
        if source.tokens < 1.0:
            return False
        source.tokens -= 1.0
        return True

    def tells(self, source: Source) -> bool:
        """Whether a datagram above its rate is answered."""
        if source.turned_away < 1.0:
            return False
        source.turned_away -= 1.0
        return True

    def forget(self, before_s: float) -> None:
        """Those that were not heard of since, and have nothing under way."""
        for host, source in list(self._sources.items()):
            if source.at_s >= before_s:
                return
            if source.is_idle:
                del self._sources[host]

    def _make_room(self) -> None:
        """Forgets the oldest that has nothing under way; there are far fewer that have."""
        if len(self._sources) < SOURCES_MAX:
            return
        for host, source in self._sources.items():
            if source.is_idle:
                del self._sources[host]
                return
