"""The hub's socket: one ROUTER in the gateway's process, bound for the gateway's own parts and for other processes.

The gateway's own parts connect by `inproc`, a user's processes by the endpoint, and both speak the same frames.
"""

from __future__ import annotations

import asyncio
import errno
import secrets
from collections.abc import Iterable
from typing import Final, cast

import zmq

from sync.bus.channel import ChannelState
from sync.bus.contract import BusError, TopicSpec
from sync.bus.hub import LEASE_S, TICK_S, Hub, HubCounts
from sync.bus.polled import PolledSocket
from sync.bus.zeromq import CLIENT_QUEUE_MAX, FRAME_BYTES_MAX, LINGER_MS, PUBLISH_S, ZeroMqBus

INPROC: Final = "inproc://bus"
"""Within the hub's own context, so that several hubs fit in one process."""


class ZeroMqHub:
    """The hub and its socket. Made and closed in a running event loop, by the gateway alone."""

    def __init__(self, topics: Iterable[TopicSpec], *, endpoint: str | None, lease_s: float = LEASE_S) -> None:
        """`endpoint`: where other processes connect, such as `ipc:///var/lib/tidegate/bus` or `tcp://127.0.0.1:7410`;
        None: nowhere. Raises BusError if it cannot be had. A path is as open as its file's mode lets it be, a TCP port
        to everybody on the machine."""
        self._loop = asyncio.get_running_loop()
        self._grant = secrets.token_bytes(32)
        self._hub = Hub(topics, run=secrets.randbits(62), grant=self._grant, now=self._loop.time(), lease_s=lease_s)
        self._clients: list[ZeroMqBus] = []
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = self._context.socket(zmq.ROUTER)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
        socket.setsockopt(zmq.SNDHWM, CLIENT_QUEUE_MAX)
        socket.bind(INPROC)
        try:
            if endpoint is not None:
                socket.bind(endpoint)
        except zmq.ZMQError as error:
            socket.close(0)
            self._context.term()
            reason = error.strerror
            if error.errno == errno.ENAMETOOLONG:
                reason = f"the path is longer than the {zmq.IPC_PATH_MAX_LEN} bytes that a socket's may have"
            raise BusError(f"the bus cannot listen on {endpoint}: {reason}") from None
        self.endpoint = None if endpoint is None else cast(bytes, socket.getsockopt(zmq.LAST_ENDPOINT)).decode()
        """Where other processes connect: what was asked for, with the port that `*` stood for."""
        self._socket = PolledSocket(socket, self._on_messages)
        self._timer = self._loop.call_later(TICK_S, self._tick)

    @property
    def counts(self) -> HubCounts:
        return self._hub.counts

    def channels(self) -> list[ChannelState]:
        """What waits where, one element a channel of each topic."""
        return self._hub.channels()

    def connect(self, *, publish_s: float = PUBLISH_S) -> ZeroMqBus:
        """A client for a part of this process: one that may read what counts. Closed with the hub, at the latest."""
        client = ZeroMqBus(self._context, INPROC, grant=self._grant, publish_s=publish_s)
        self._clients.append(client)
        return client

    async def close(self) -> None:
        """Publishers that wait get BusError; the endpoint is free afterwards."""
        self._hub.close()
        self._flush()
        for client in self._clients:
            await client.close()
        self._timer.cancel()
        self._socket.close(LINGER_MS)
        await asyncio.to_thread(self._context.term)

    def _on_messages(self, messages: list[list[bytes]]) -> None:
        now = self._loop.time()
        for parts in messages:
            self._hub.receive(parts[0], parts[1:], now)
        self._flush()

    def _tick(self) -> None:
        self._hub.tick(self._loop.time())
        self._flush()
        self._timer = self._loop.call_later(TICK_S, self._tick)

    def _flush(self) -> None:
        while outgoing := self._hub.take_outgoing():
            for peer_id, parts in outgoing:
                if not self._socket.send([peer_id, *parts]):
                    self._hub.gone(peer_id, self._loop.time())
