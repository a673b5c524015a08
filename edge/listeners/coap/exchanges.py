"""Messages that came lately, so that one that comes again is answered as before and recorded once (RFC 7252,
section 4.5).

Two messages are the same if endpoint, message id and bytes are: a device that rebooted and counts from the start again
has new messages under old ids, and they must not be answered as recorded.
"""

from __future__ import annotations

from edge.listeners.coap.limits import EXCHANGE_S, EXCHANGES_MAX, EXCHANGES_PER_ENDPOINT_MAX

Address = tuple[str | int, ...]
"""Of a socket: host, port, and what IPv6 adds."""


class Exchange:
    __slots__ = ("answer", "at_s", "digest")

    def __init__(self, digest: int, at_s: float) -> None:
        self.digest = digest
        self.at_s = at_s
        self.answer = b""
        """The datagram that it was answered with; empty: not yet, or nothing was due."""


class Exchanges:
    def __init__(self) -> None:
        self._endpoints: dict[Address, dict[int, Exchange]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def find(self, address: Address, message_id: int, data: bytes, now_s: float) -> Exchange | None:
        """The same message, if it was here before."""
        exchanges = self._endpoints.get(address)
        exchange = None if exchanges is None else exchanges.get(message_id)
        if exchange is None or exchange.digest != hash(data) or now_s - exchange.at_s > EXCHANGE_S:
            return None
        return exchange

    def begin(self, address: Address, message_id: int, data: bytes, now_s: float) -> Exchange:
        """Notes a message; it takes the place of an older one with its id."""
        exchanges = self._endpoints.pop(address, {})  # so that the endpoint that was silent longest stands first
        self._count -= exchanges.pop(message_id, None) is not None
        if len(exchanges) >= EXCHANGES_PER_ENDPOINT_MAX:
            del exchanges[next(iter(exchanges))]
            self._count -= 1
        elif self._count >= EXCHANGES_MAX:
            self._forget_one()
        self._endpoints[address] = exchanges
        exchange = exchanges[message_id] = Exchange(hash(data), now_s)
        self._count += 1
        return exchange

    def drop(self, address: Address, message_id: int) -> None:
        """The message is new if it comes again."""
        exchanges = self._endpoints.get(address, {})
        self._count -= exchanges.pop(message_id, None) is not None
        if not exchanges:
            self._endpoints.pop(address, None)

    def forget(self, now_s: float) -> None:
        """What is too old."""
        for address, exchanges in list(self._endpoints.items()):
            for message_id, exchange in list(exchanges.items()):
                if now_s - exchange.at_s <= EXCHANGE_S:
                    break
                del exchanges[message_id]
                self._count -= 1
            if exchanges:
                return  # those behind it were heard of later
            del self._endpoints[address]

    def _forget_one(self) -> None:
        address = next(iter(self._endpoints), None)
        if address is None:
            return
        exchanges = self._endpoints[address]
        del exchanges[next(iter(exchanges))]
        self._count -= 1
        if not exchanges:
            del self._endpoints[address]
