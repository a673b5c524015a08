"""A listener of each protocol at the demo's gateway, and at each a device that nothing simulates: the bench, from which
a person sends.

Who a device is, each protocol says in its simplest way: by a credential, by a first frame, or by being the only one.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from firmware_sim.demo.ports import free_port
from firmware_sim.demo.unit import TEMPERATURE, TENTHS
from firmware_sim.devices.roster import PROTOCOLS, RosterDevice
from firmware_sim.run_folder import Bench, DemoState

HOST: Final = "127.0.0.1"
POLL_S: Final = 0.5
"""Of Modbus units: what somebody writes into a register is to be seen within a second."""
OK: Final = "OK {count}\n"
"""Of lines of frames: so many are on disk."""


class Way(msgspec.Struct, frozen=True):
    """How the demo offers a protocol."""

    title: str
    bench: str
    """Name of its device."""
    port: int = 0
    """Of the listener, or of the Modbus unit, which the gateway connects to; 0: it has none."""
    family: socket.SocketKind = socket.SOCK_STREAM
    has_credential: bool = False


WAYS: Final[Mapping[str, Way]] = {
    "mqtt": Way("MQTT", "bench-01", 1884, has_credential=True),
    "coap": Way("CoAP", "bench-coap", 5683, socket.SOCK_DGRAM, has_credential=True),
    "http": Way("HTTP", "bench-http", 8082, has_credential=True),
    "tcp": Way("TCP", "bench-tcp", 5000),
    "udp": Way("UDP", "bench-udp", 5000, socket.SOCK_DGRAM),
    "serial": Way("serial", "bench-serial"),
    "modbus": Way("Modbus", "bench-modbus", 1502),
}


def place_benches(state: DemoState, folder: Path, taken: set[int]) -> None:
    """Where each is found in this run; `taken`: TCP ports that others of the demo are going to listen on. Raises
    UserError."""
    for protocol in PROTOCOLS:
        way = WAYS[protocol]
        bench = state.benches.setdefault(
            protocol,
            Bench(RosterDevice(way.bench, network=state.network, alias_key=state.alias_key, protocol=protocol)),
        )
        if protocol == "serial":
            bench.line = str(folder / "serial" / "bench")
            bench.device = msgspec.structs.replace(bench.device, path=str(folder / "serial" / "gateway"))
            continue
        is_tcp = way.family is socket.SOCK_STREAM
        port = free_port(way.port, taken if is_tcp else (), way.family)
        if is_tcp:
            taken.add(port)
        bench.device = msgspec.structs.replace(bench.device, host=HOST, port=port)


def sections(state: DemoState) -> dict[str, list[dict[str, Any]]]:
    """The listeners of the gateway's configuration."""
    return {protocol: [_section(bench.device)] for protocol, bench in state.benches.items()}


def _section(device: RosterDevice) -> dict[str, Any]:
    alias = f"{device.alias_key}:{device.name}"
    named = {"name": device.protocol, "network": device.network}
    if device.protocol == "modbus":
        register = {"name": "temperature", "address": TEMPERATURE, "scale": 1 / TENTHS, "digits": 1}
        unit = {"unit": device.unit, "device": alias, "registers": [register]}
        return {**named, "host": device.host, "port": device.port, "interval_s": POLL_S, "units": [unit]}
    if device.protocol == "serial":
        return {**named, "port": device.path, "open": True, "device": alias, "ack": OK}
    listens = {**named, "host": device.host, "port": device.port}
    if device.protocol == "tcp":
        return {**listens, "open": True, "login": f"ID {{{device.alias_key}}}", "ack": OK}
    if device.protocol == "udp":
        return {**listens, "open": True, "device": alias, "ack": OK}
    return listens
