"""What protocols over sockets share: TLS, names of peers, dead peers, and what is said where a socket cannot be had."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge.listeners.config import TlsFiles
from tidegate.console import UserError

BACKLOG: Final = 1024
"""Connections that the kernel keeps while a whole site comes back at once."""

TLS_HANDSHAKE_S: Final = 10.0

TCP_IDLE_S: Final = 60
TCP_PROBES: Final = 4
TCP_PROBE_EVERY_S: Final = 15
"""The kernel finds dead peers that say nothing by themselves within two minutes."""


async def open_server(
    name: str, host: str, port: int, protocol: Callable[[], asyncio.BaseProtocol], tls: TlsFiles | None
) -> asyncio.Server:
    """Listens. Raises UserError where the port or the certificate cannot be used."""
    context = None if tls is None else tls_context(name, tls)
    try:
        return await asyncio.get_running_loop().create_server(
            protocol,
            host,
            port,
            backlog=BACKLOG,
            ssl=context,
            ssl_handshake_timeout=None if context is None else TLS_HANDSHAKE_S,
        )
    except OSError as error:
        raise cannot_listen(name, host, port, error) from error


_SO_MEMINFO: Final = 55
_MEMINFO_DROPS: Final = struct.Struct("=9I")
"""socket(7): the ninth number of SK_MEMINFO counts what the kernel dropped as the buffer was full."""


def tls_context(name: str, files: TlsFiles) -> ssl.SSLContext:
    """Of the server's side. Raises UserError where a file cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_certificate(context, name, files)
    if files.client_ca is not None:
        load_authorities(context, name, "tls_client_ca", files.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(name: str, setting: str, authorities: str, files: TlsFiles | None) -> ssl.SSLContext:
    """Of the client's side. `authorities`: whom it trusts, as `setting` says; empty: whom the system does. Raises
    UserError where a file cannot be used."""
    context = ssl.create_default_context() if not authorities else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if authorities:
        load_authorities(context, name, setting, authorities)
    if files is not None:
        load_certificate(context, name, files)
    return context


def load_certificate(context: ssl.SSLContext, name: str, files: TlsFiles) -> None:
    try:
        context.load_cert_chain(files.cert, files.key)
    except (OSError, ssl.SSLError) as error:
        remedy = "both must be readable PEM files, and the key must be the certificate's"
        what = f"listener {name!r} cannot use tls_cert {files.cert} with tls_key {files.key}: {error}"
        raise UserError(what, remedy) from error


def load_authorities(context: ssl.SSLContext, name: str, setting: str, file: Path | str) -> None:
    """Certificates of authorities that the listener trusts; `setting` names them in what is said."""
    try:
        context.load_verify_locations(file)
    except (OSError, ssl.SSLError) as error:
        what = f"listener {name!r} cannot use {setting} {file}: {error}"
        raise UserError(what, "give a readable PEM file of certificates") from error


def cannot_listen(name: str, host: str, port: int, error: OSError, *, protocol: str = "tcp") -> UserError:
    """Why a listener has no socket, and what to do."""
    where = f"listener {name!r} cannot listen on {address(host, port)}"
    if error.errno == errno.EADDRINUSE:
        option = "-lunp" if protocol == "udp" else "-ltnp"
        return UserError(
            f"{where}: the port is in use",
            f"stop what listens there (ss {option} 'sport = :{port}' names it), or give the listener another port",
        )
    if error.errno == errno.EACCES:
        return UserError(f"{where}: not allowed", "ports below 1024 need CAP_NET_BIND_SERVICE; take a higher one")
    return UserError(f"{where}: {error.strerror or error}", "give the listener an address of this machine as its host")


def address(host: str, port: int) -> str:
    """As a person would write it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def kernel_drops(sock: socket.socket) -> int:
    """Datagrams that the kernel dropped since the socket was made, as nobody read them in time."""
    try:
        told = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO_DROPS.size)
        return int(_MEMINFO_DROPS.unpack(told)[8])
    except (OSError, struct.error):  # an older kernel: nobody counts
        return 0


def peer_of(name: object) -> tuple[str, str]:
    """Address, and address with port, of a peer name as sockets give it."""
    if isinstance(name, tuple) and len(name) >= 2:
        host, port = name[:2]
        return str(host), address(str(host), port)
    return "unknown", "unknown"


def watch_peer(sock: socket.socket) -> None:
    """Lets the kernel find out that a peer is dead."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, TCP_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, TCP_PROBES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, TCP_PROBE_EVERY_S)
