"""A listener of each protocol at the demo's gateway, and at each a device that nothing simulates: the bench, from which
a person sends.

Who a device is, each protocol says in its simplest way: by a credential, by a first frame, or by being the only one.
Simulated devices use the same listeners, but where there can be only one each has a listener of its own.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from firmware_sim.demo.ports import any_port, free_port
from firmware_sim.demo.unit import TEMPERATURE, TENTHS
from firmware_sim.devices.register_map import RegisterMap
from firmware_sim.devices.roster import PROTOCOLS, RosterDevice
from firmware_sim.run_folder import Bench, DemoState
from firmware_sim.signals import PROFILES

HOST: Final = "127.0.0.1"
POLL_S: Final = 0.5
"""Of Modbus units: what somebody writes into a register is to be seen within a second."""
OK: Final = "OK {count}\n"
"""Of lines of frames: so many are on disk."""


_BENCH_REGISTERS: Final = [{"name": "temperature", "address": TEMPERATURE, "scale": 1 / TENTHS, "digits": 1}]


class Way(msgspec.Struct, frozen=True):
    """How the demo offers a protocol."""

    title: str
    bench: str
    """Name of its device."""
    port: int = 0
    """Of the listener, or of the Modbus unit, which the gateway connects to; 0: it has none."""
    family: socket.SocketKind = socket.SOCK_STREAM
    has_credential: bool = False
    is_alone: bool = False
    """A listener has one device."""


WAYS: Final[Mapping[str, Way]] = {
    "mqtt": Way("MQTT", "bench-01", 1884, has_credential=True),
    "coap": Way("CoAP", "bench-coap", 5683, socket.SOCK_DGRAM, has_credential=True),
    "http": Way("HTTP", "bench-http", 8082, has_credential=True),
    "tcp": Way("TCP", "bench-tcp", 5000),
    "udp": Way("UDP", "bench-udp", 5000, socket.SOCK_DGRAM, is_alone=True),
    "serial": Way("serial", "bench-serial", is_alone=True),
    "modbus": Way("Modbus", "bench-modbus", 1502, is_alone=True),
}


def add_benches(state: DemoState) -> None:
    """Those that are missing."""
    for protocol in PROTOCOLS:
        device = RosterDevice(WAYS[protocol].bench, network=state.network, alias_key=state.alias_key, protocol=protocol)
        state.benches.setdefault(protocol, Bench(device))


def place(state: DemoState, folder: Path, taken: Iterable[int]) -> None:
    """Where benches and simulated devices are found in this run; `taken`: TCP ports that others of the demo are going
    to listen on. Raises UserError where no port is free."""
    ports = {socket.SOCK_STREAM: set(taken), socket.SOCK_DGRAM: set[int]()}
    for protocol, bench in state.benches.items():
        way = WAYS[protocol]
        if way.port:
            port = free_port(way.port, ports[way.family], way.family)
            ports[way.family].add(port)
            bench.device = msgspec.structs.replace(bench.device, host=HOST, port=port)
        else:
            bench.line = str(folder / "serial" / "bench")
            bench.device = msgspec.structs.replace(bench.device, path=str(folder / "serial" / "gateway"))
    for number, device in enumerate(state.devices):
        state.devices[number] = _placed(device, state.benches[device.protocol].device, folder)


def _placed(device: RosterDevice, bench: RosterDevice, folder: Path) -> RosterDevice:
    """A simulated device, at the bench's listener, or where it is alone."""
    way = WAYS[device.protocol]
    if not way.is_alone:
        return msgspec.structs.replace(device, host=bench.host, port=bench.port)
    if way.port:
        return msgspec.structs.replace(device, host=HOST, port=any_port(way.family))
    return msgspec.structs.replace(device, path=str(folder / "serial" / device.name))


def sections(state: DemoState) -> dict[str, list[dict[str, Any]]]:
    """The listeners of the gateway's configuration."""
    found: dict[str, list[dict[str, Any]]] = {}
    for protocol, bench in state.benches.items():
        found[protocol] = [_section(protocol, bench.device, _BENCH_REGISTERS)]
    for device in state.devices:
        if WAYS[device.protocol].is_alone:
            found[device.protocol].append(_section(device.name, device, RegisterMap(PROFILES[device.profile]).tables()))
    return found


def _section(name: str, device: RosterDevice, registers: list[dict[str, Any]]) -> dict[str, Any]:
    alias = f"{device.alias_key}:{device.name}"
    named = {"name": name, "network": device.network}
    if device.protocol == "modbus":
        unit = {"unit": device.unit, "device": alias, "registers": registers}
        return {**named, "host": device.host, "port": device.port, "interval_s": POLL_S, "units": [unit]}
    if device.protocol == "serial":
        return {**named, "port": device.path, "open": True, "device": alias, "ack": OK}
    listens = {**named, "host": device.host, "port": device.port}
    if device.protocol == "tcp":
        return {**listens, "open": True, "login": f"ID {{{device.alias_key}}}", "ack": OK}
    if device.protocol == "udp":
        return {**listens, "open": True, "device": alias, "ack": OK}
    return listens
