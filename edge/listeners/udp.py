"""The UDP listener: datagrams, each a frame or several. Best effort until they are recorded, and counted."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

from edge.listeners.command_form import answer_origin, framed, is_answer
from edge.listeners.filling import Owed
from edge.listeners.frames import REJECTS_TOLD_PER_S, FrameRules, rules_of
from edge.listeners.listener import ListenerCounters, Shared
from edge.listeners.refusals import Refusals, Refused
from edge.listeners.sockets import address, cannot_listen, kernel_drops
from edge.listeners.stream_config import UdpConfig
from edge.listeners.way import CommandRefusedError, DeviceAbsentError
from protocols.framing.base import FrameError
from protocols.framing.spec import FramingSpec
from protocols.messages import Command, Origin
from protocols.templates import NOBODY, Name
from tidegate.console import UserError

DATAGRAM_BYTES_MAX: Final = 65_535
DATAGRAMS_PER_WAKE_MAX: Final = 256
"""Read before others get their turn: 0.5 ms of work."""

SOURCES_MAX: Final = 10_000
"""Addresses that are remembered, for their rates and for commands to them; those that were silent longest make room.
About 5 MB."""

RECEIVE_BUFFER_BYTES: Final = 4 * 1024 * 1024
"""Asked of the kernel, which gives what it is allowed to: some tens of milliseconds at full rate."""

ANSWERS_PER_DATAGRAM_MAX: Final = 100
"""Where a datagram holds several frames, so does an answer; of 12 bytes, so many fit in an Ethernet frame."""

TICK_S: Final = 1.0
DRAIN_S: Final = 10.0


class _Source:
    """One address. A Waiter of the collector: a token is the port that an answer goes to."""

    __slots__ = ("_hub", "answers", "count", "host", "last", "origin", "recorded_frames", "tick", "told_rate")

    def __init__(self, hub: UdpListener, host: str, origin: Origin) -> None:
        self.host = host
        self.origin = origin
        self.answers = answer_origin(origin)
        """Of its answers to commands."""
        self.last: Any = None
        """The socket address that was heard last."""
        self.tick = -1
        self.count = 0
        self.told_rate = False
        self.recorded_frames = 0
        self._hub = hub

    def recorded(self, owed: Owed) -> None:
        hub = self._hub
        hub.counters.recorded += owed.rows
        ack = hub.rules.ack
        for port, frames in _together(owed.tokens, alone=hub.framing is None):
            hub.send(ack.counted(self.recorded_frames + 1, frames), (self.host, port, *self.last[2:]))
            self.recorded_frames += frames

    def refused(self, owed: Owed, code: str) -> None:
        hub = self._hub
        hub.counters.refused[code] = hub.counters.refused.get(code, 0) + owed.rows
        if hub.rules.nack:
            for port, frames in _together(owed.tokens, alone=hub.framing is None):
                hub.send(hub.rules.nack.filled("code", code) * frames, (self.host, port, *self.last[2:]))


def _together(tokens: Sequence[bytes], *, alone: bool) -> Iterator[tuple[int, int]]:
    """Ports, and how many answers go there in one datagram: `alone`, one; else as many as came one behind the other."""
    if alone:
        yield from ((int(token), 1) for token in tokens)
        return
    for token, run in itertools.groupby(tokens):
        frames = sum(1 for _ in run)
        for first in range(0, frames, ANSWERS_PER_DATAGRAM_MAX):
            yield int(token), min(ANSWERS_PER_DATAGRAM_MAX, frames - first)


class UdpWay:
    """To where a device was last heard; nothing says that it has it, but its own answer."""

    confirms = False

    def __init__(self, hub: UdpListener, target: Any) -> None:
        self._hub = hub
        self._target = target

    async def send(self, command: Command) -> None:
        payload = framed(command, self._hub.rules.form)
        try:
            data = payload if self._hub.framing is None else self._hub.rules.framing.encode(payload)
        except FrameError as error:
            raise CommandRefusedError(f"no frame can hold it: {error}") from None
        failure = self._hub.send(data, self._target)
        if failure is not None:
            raise DeviceAbsentError(f"it cannot be sent to {address(*self._target[:2])}: {failure}")


class UdpListener:
    """One port. Datagrams are read many at a time, and those of one address go to the collector together."""

    kind = "udp"

    def __init__(self, config: UdpConfig, shared: Shared) -> None:
        self.name = config.name
        self.network_id = config.network
        self.host = config.host
        self.port = config.port
        self.collector = shared.collector
        self.counters = ListenerCounters()
        self.refusals = Refusals(config.name)
        self.framing: FramingSpec | None = config.framing
        self.rules: FrameRules = rules_of(config, config.framing or FramingSpec(), silence_counts=False)
        self.trouble = ""
        self._config = config
        self._registry = shared.registry
        self._sources: dict[str, _Source] = {}
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tick = 0
        self._told = 0
        self._dropped = 0
        self._last: _Source | None = None

    @property
    def place(self) -> str:
        groups = "".join(f" {group}" for group in self._config.groups)
        return f"{address(self.host, self.port)}{groups}"

    @property
    def is_listening(self) -> bool:
        return self._socket is not None

    async def start(self) -> None:
        """Listens. Raises UserError where the port, or a multicast group, cannot be had."""
        loop = asyncio.get_running_loop()
        try:
            self._socket = self._bound()
        except OSError as error:
            raise cannot_listen(self.name, self.host, self.port, error, protocol="udp") from error
        for group in self._config.groups:
            try:
                self._join(self._socket, group)
            except (OSError, ValueError) as error:
                self._socket.close()
                self._socket = None
                what = f"listener {self.name!r} cannot join the multicast group {group}: {error}"
                raise UserError(what, "see that an interface is up for it; interface = names one") from error
        self.port = self._socket.getsockname()[1]
        loop.add_reader(self._socket, self._readable)
        self._turn(loop)

    async def close(self) -> None:
        if self._socket is None:
            return
        asyncio.get_running_loop().remove_reader(self._socket)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.collector.drained(), DRAIN_S)
        if self._timer is not None:
            self._timer.cancel()
        self._count_drops()
        sock, self._socket = self._socket, None
        sock.close()

    def recheck(self) -> None:
        """Nobody has a credential that the registry could no longer hold."""

    def way(self, alias_key: str, alias: str) -> UdpWay | None:
        device = self.rules.device
        if device != NOBODY:
            source = self._last if (alias_key, alias) == (device.alias_key, device.alias) else None
        else:
            source = self._sources.get(alias) if alias_key == "ip" and self._config.identity == "address" else None
        return None if source is None else UdpWay(self, source.last)

    def send(self, data: bytes, target: Any) -> OSError | None:
        """A datagram; why it did not leave. What the kernel has no room for is lost, as on the way."""
        if self._socket is None:
            return OSError("the listener is closed")
        try:
            self._socket.sendto(data, target)
        except OSError as error:
            self.refusals.count("unsent", 1)
            return error
        return None

    # inside

    def _readable(self) -> None:
        sock = self._socket
        if sock is None:
            return
        came: dict[str, list[tuple[bytes, Any]]] = {}
        size = 0
        try:
            for _ in range(DATAGRAMS_PER_WAKE_MAX):
                datagram = sock.recvfrom(DATAGRAM_BYTES_MAX)
                size += len(datagram[0])
                of_host = came.get(datagram[1][0])
                if of_host is None:
                    came[datagram[1][0]] = [datagram]
                else:
                    of_host.append(datagram)
        except BlockingIOError:
            pass
        except OSError as error:  # an answer that nobody took, told by the peer's ICMP
            self.refusals.count("unreachable", 1)
            self.trouble = str(error.strerror or error)
        self.counters.bytes_in += size
        for host, datagrams in came.items():
            self._take(host, datagrams)

    def _take(self, host: str, datagrams: list[tuple[bytes, Any]]) -> None:
        source = self._source(host)
        source.last = datagrams[-1][1]
        self._last = source
        room = self._room(source, len(datagrams))
        if room < len(datagrams):
            self.refusals.count("too_frequent", len(datagrams) - room - 1)
            detail = f"more than {self._config.rate_max:,} datagrams in a second"
            self._tell("too_frequent", detail, *datagrams[room])
            datagrams = datagrams[:room]
        if self.collector.paused:
            self.collector.refuse("paused", len(datagrams))
            refused = self.counters.refused
            refused["paused"] = refused.get("paused", 0) + len(datagrams)
            return
        payloads: list[bytes] = []
        tokens: list[bytes] = []
        wants_answer = bool(self.rules.ack or self.rules.nack)
        for data, peer in datagrams:
            frames = [data] if self.framing is None else self._frames(data, peer)
            token = [b"%d" % peer[1]] if wants_answer else []
            for frame in frames:
                if self.rules.form == "json" and is_answer(frame):
                    self.collector.add(source.answers, [frame], source, token)
                elif frame:
                    payloads.append(frame)
                    tokens += token
        if payloads:
            self.collector.add(source.origin, payloads, source, tokens)

    def _frames(self, data: bytes, peer: Any) -> list[bytes]:
        """A datagram is a stream of its own: half a frame at its end is none."""
        decoder = self.rules.framing.decoder()
        frames = decoder.receive(data) + decoder.idle()
        rejects, more = decoder.take_rejects()
        for reject in rejects:
            self.counters.malformed += 1
            self._tell(reject.code, reject.detail, reject.data, peer)
        for code, times in more.items():
            self.counters.malformed += times
            self.refusals.count(code, times)
        if rejects and self.rules.nack:
            self.send(self.rules.nack.filled("code", rejects[0].code), peer)
        return frames

    def _room(self, source: _Source, wanted: int) -> int:
        """How many of its datagrams the address may still send in this second."""
        if not self._config.rate_max:
            return wanted
        if source.tick != self._tick:
            source.tick, source.count = self._tick, 0
        room = min(wanted, max(0, self._config.rate_max - source.count))
        source.count += wanted
        return room

    def _tell(self, code: str, detail: str, data: bytes, peer: Any) -> None:
        self._told += 1
        if self._told > REJECTS_TOLD_PER_S:
            self.refusals.count(code, 1)
            return
        refused = Refused(self.collector.clock.wall_ms(), code, detail, address(*peer[:2]), "", data[:1024])
        self.refusals.add(refused, now_s=asyncio.get_running_loop().time())

    def _source(self, host: str) -> _Source:
        """The order of the dictionary is that in which they were heard first or, once it is full, last."""
        source = self._sources.get(host)
        if source is None:
            if len(self._sources) >= SOURCES_MAX:
                del self._sources[next(iter(self._sources))]
            source = self._sources[host] = _Source(self, host, self._origin(host))
            self.counters.connections = len(self._sources)
            self.counters.connections_total += 1
        elif len(self._sources) >= SOURCES_MAX:
            del self._sources[host]
            self._sources[host] = source
        return source

    def _origin(self, host: str) -> Origin:
        rules = self.rules
        if rules.device != NOBODY:
            name = rules.device
        elif self._config.identity == "address":
            name = Name("ip", host)
        else:
            network = self._registry.networks.get(self.network_id)
            name = Name("serial" if network is None else network.alias_key, "")
        return Origin(self.network_id, name.alias_key, name.alias, "", rules.codec, self.name, rules.priority)

    def _bound(self) -> socket.socket:
        flags = socket.AI_PASSIVE
        family, kind, _, _, place = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM, flags=flags)[0]
        sock = socket.socket(family, kind)
        try:
            if self._config.groups:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # others may listen to the group too
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            sock.setblocking(False)
            sock.bind(place)
        except OSError:
            sock.close()
            raise
        return sock

    def _join(self, sock: socket.socket, group: str) -> None:
        name = self._config.interface
        index = socket.if_nametoindex(name) if name else 0
        parsed = ipaddress.ip_address(group)
        if parsed.version == 4:
            request = struct.pack("4s4si", parsed.packed, bytes(4), index)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, parsed.packed + struct.pack("@I", index))

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(TICK_S, self._turn, loop)
        self._tick += 1
        self._told = 0
        self.trouble = ""
        self._count_drops()

    def _count_drops(self) -> None:
        """What the kernel dropped before it could be read is counted as refused too."""
        if self._socket is None:
            return
        dropped = kernel_drops(self._socket)
        if dropped > self._dropped:
            refused, more = self.counters.refused, dropped - self._dropped
            refused["receive_buffer"] = refused.get("receive_buffer", 0) + more
            self.collector.refuse("receive_buffer", more)
            self._dropped = dropped


def make_listener(config: UdpConfig, shared: Shared) -> UdpListener:
    return UdpListener(config, shared)
