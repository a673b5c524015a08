"""One line for each protocol that sends one value from its bench, by a client that people have. Each works as it is
written, typed into a shell in the folder that the demo was started in."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Final

from firmware_sim.demo.unit import TEMPERATURE, TENTHS
from firmware_sim.devices.roster import Protocol, RosterDevice
from firmware_sim.run_folder import Bench

PROGRAMS: Final = ".venv/bin"
VALUE: Final = 71.5
"""Of `temperature`."""
NC_WAIT_S: Final = 1
"""How long `nc` waits for more answers. Every netcat has this option, and few have another to end by."""
COAP_CLIENTS: Final = ("coap-client", "coap-client-notls", "coap-client-openssl", "coap-client-gnutls")
"""libcoap's, as Debian has it: under its own name, or with that of its TLS library."""

_NEEDS: Final[dict[Protocol, tuple[str, str]]] = {
    "mqtt": ("mosquitto_pub", "mosquitto-clients"),
    "http": ("curl", "curl"),
    "tcp": ("nc", "netcat-openbsd"),
    "udp": ("nc", "netcat-openbsd"),
}
"""Client and its Debian package. CoAP and Modbus have one in the environment, a serial line needs none."""

Find = Callable[[str], object]
"""Of a program's name: something false where there is none."""


def command(bench: Bench, shown: Callable[[Path], str], find: Find) -> str:
    """`shown`: how a path in the demo's folder is typed."""
    device = bench.device
    place = f"{device.host}:{device.port}"
    message = f"'{{\"temperature\":{VALUE}}}'"
    match device.protocol:
        case "mqtt":
            secret = f"-u {device.user} -P {device.password}"
            return f"mosquitto_pub -p {device.port} {secret} -q 1 -t up -m {message}"
        case "coap":
            return _coap(device, message, find)
        case "http":
            return f"curl -si -u {device.user}:{device.password} {place}/{device.name} -d {message}"
        case "tcp":
            lines = rf"""'ID {device.name}\n{{"temperature":{VALUE}}}\n'"""
            return f"printf {lines} | nc -w{NC_WAIT_S} {device.host} {device.port}"
        case "udp":
            return f"echo {message} | nc -u -w{NC_WAIT_S} {device.host} {device.port}"
        case "serial":
            return f"echo {message} > {shlex.quote(shown(Path(bench.line)))}"
        case "modbus":
            unit = f'Unit("{device.host}", port={device.port})'
            write = f"{unit}.write_register({TEMPERATURE}, {round(VALUE * TENTHS)})"
            return f"{PROGRAMS}/python -c 'from pymodbus.client import ModbusTcpClient as Unit; {write}'"


def missing_package(protocol: Protocol, find: Find) -> str:
    """Debian's, of a client that is not here; empty: it is."""
    client, package = _NEEDS.get(protocol, ("", ""))
    return package if client and not find(client) else ""


def _coap(device: RosterDevice, message: str, find: Find) -> str:
    resource = f"'coap://{device.host}:{device.port}/{device.name}?key={device.password}'"
    client = next((name for name in COAP_CLIENTS if find(name)), None)
    if client is not None:
        return f"{client} -m post -t json -e {message} {resource}"
    return f"{PROGRAMS}/aiocoap-client -m POST --content-format application/json --payload {message} {resource}"
