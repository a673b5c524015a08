"""The socket: datagrams in bursts, answered from the address that they came to."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable
from typing import Final

from edge.listeners.coap.exchanges import Address
from edge.listeners.coap.limits import DATAGRAM_BYTES_MAX, READS_MAX, RECEIVE_BUFFER_BYTES
from edge.listeners.sockets import kernel_drops

IP_PKTINFO: Final = 8
"""ip(7); Python's socket module does not name it."""

_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(20)
"""Room for struct in6_pktinfo (RFC 3542, section 6), which is longer than struct in_pktinfo."""

_MAPPED: Final = "::ffff:"


class Peer:
    """Where a datagram came from, and the address here that it came to."""

    __slots__ = ("address", "local")

    def __init__(self, address: Address, local: bytes) -> None:
        self.address = address
        self.local = local
        """The system's own form of it; empty: the socket has one address only."""

    @property
    def host(self) -> str:
        """As a person would write it: IPv4 as such, also where it comes to an IPv6 socket."""
        return str(self.address[0]).removeprefix(_MAPPED)


Received = Callable[[bytes, Peer, bool], None]
"""A datagram, its sender, and whether it was longer than what is read of one."""


class Datagrams:
    """Bound when made. A socket on all addresses of a machine is told by the system which one a datagram came to, and
    answers from it: clients pass over what comes from another. Nobody else may have the port: no `SO_REUSEPORT`."""

    def __init__(self, host: str, port: int) -> None:
        """Raises OSError."""
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
        )[0]
        self._socket = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
        self._level = socket.IPPROTO_IP
        self._type = 0
        self._buffer = bytearray(DATAGRAM_BYTES_MAX)
        self._loop = asyncio.get_running_loop()
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            if ipaddress.ip_address(str(address[0]).partition("%")[0]).is_unspecified:
                self._ask_for_local(family)
            self._socket.bind(address)
        except OSError:
            self._socket.close()
            raise

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    @property
    def dropped(self) -> int:
        """By the system, as they were not read in time."""
        return kernel_drops(self._socket)

    def listen(self, received: Received) -> None:
        self._loop.add_reader(self._socket.fileno(), self._read, received)

    def deafen(self) -> None:
        """Reads no more; sending goes on."""
        self._loop.remove_reader(self._socket.fileno())

    def close(self) -> None:
        self.deafen()
        self._socket.close()

    def send(self, data: bytes, peer: Peer) -> None:
        """What cannot leave now (no route, no room) is lost, as any datagram may be: who waits for it asks again."""
        with contextlib.suppress(OSError):
            if self._type and peer.local:
                self._socket.sendmsg((data,), ((self._level, self._type, peer.local),), 0, peer.address)
            else:
                self._socket.sendto(data, peer.address)

    def _ask_for_local(self, family: int) -> None:
        if family == socket.AF_INET6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            self._level, self._type = socket.IPPROTO_IPV6, socket.IPV6_PKTINFO
        else:
            self._socket.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            self._type = IP_PKTINFO

    def _read(self, received: Received) -> None:
        for _ in range(READS_MAX):
            try:
                if self._type:
                    size, ancillary, flags, address = self._socket.recvmsg_into((self._buffer,), _ANCILLARY_BYTES)
                    local = self._local(ancillary)
                else:
                    size, _, flags, address = self._socket.recvmsg_into((self._buffer,))
                    local = b""
            except OSError:  # nothing is left, or what the system tells of a datagram of ours
                return
            received(bytes(self._buffer[:size]), Peer(address, local), bool(flags & socket.MSG_TRUNC))
            if self._socket.fileno() < 0:
                return

    def _local(self, ancillary: list[tuple[int, int, bytes]]) -> bytes:
        for level, kind, data in ancillary:
            if level == self._level and kind == self._type:
                if level == socket.IPPROTO_IP:
                    # ifi_index, ipi_spec_dst, ipi_addr: answered from spec_dst, by whatever interface leads there
                    return bytes(4) + data[4:8] + bytes(4)
                return data
        return b""
