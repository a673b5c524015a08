"""A site whose gateway has a listener of every protocol, and a fleet's devices that speak them all."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from firmware_sim.devices.register_map import RegisterMap
from firmware_sim.devices.roster import Protocol
from firmware_sim.signals import PROFILES
from tests.contract.nats_server import free_port
from tests.end_to_end.site import Site

NETWORKS: dict[Protocol, str] = {
    "mqtt": "keyed",
    "coap": "plain",
    "http": "keyed",
    "tcp": "plain",
    "udp": "named",
    "serial": "keyed",
    "modbus": "keyed",
}
"""Keyed and not, so that both rules are proven: a resend is stored once, or at most once a sending."""

PROFILE = "pump"
POLL_S = 0.1


class EveryProtocol(Site):
    """Beside the MQTT listeners of a site: CoAP, HTTP, TCP and UDP, a port for each serial device, and one line for all
    Modbus units. The network `named` is keyed, and finds devices by their payload."""

    def __init__(self, folder: Path, counts: dict[Protocol, int]) -> None:
        """`counts`: how many devices speak what."""
        super().__init__(folder)
        self.counts = counts
        self.ports: dict[Protocol, int] = {protocol: free_port() for protocol in counts if protocol != "serial"}
        self.ports["mqtt"] = self.mqtt_ports[NETWORKS["mqtt"]]
        self.edge_toml.write_text(self.edge_toml.read_text() + self._listeners())

    def names(self, protocol: Protocol) -> list[str]:
        return [f"{protocol}-{number}" for number in range(1, self.counts.get(protocol, 0) + 1)]

    def place(self, name: str) -> str:
        """Of a serial device's link."""
        return str(self.folder / name)

    async def set_up_cloud(self) -> None:
        await super().set_up_cloud()
        codec = {"key_paths": ["boot", "seq"], "alias_path": "serial"}
        await self.post("networks", {"id": "named", "name": "Named", "codec": codec})

    async def add_all(self) -> list[dict[str, Any]]:
        """As a fleet's roster wants them."""
        return [await self._add(protocol, name) for protocol in self.counts for name in self.names(protocol)]

    async def until_known(self, devices: int) -> None:
        """The gateway has their credentials."""

        async def are_known() -> bool:
            return bool((await self.gateway_status())["registry"]["devices"] == devices)

        await self.until(are_known)

    async def _add(self, protocol: Protocol, name: str) -> dict[str, Any]:
        network = NETWORKS[protocol]
        body = {
            "system_id": "site",
            "blueprint_id": "pump",
            "name": name,
            "aliases": [{"network_id": network, "alias_key": "serial", "alias": name}],
            "credential": True,
        }
        made = await self.post("devices", body)
        device: dict[str, Any] = {
            "name": name,
            "password": made["credential"]["password"],
            "network": network,
            "keyed": network != "plain",
            "protocol": protocol,
            "profile": PROFILE,
        }
        if protocol == "serial":
            return device | {"path": self.place(name)}
        unit = {"unit": self.names(protocol).index(name) + 1} if protocol == "modbus" else {}
        return device | {"port": self.ports[protocol]} | unit

    def _listeners(self) -> str:
        lines = {"open": True, "ack": "OK {count}\n"}
        own: dict[Protocol, dict[str, Any]] = {
            "coap": {},
            "http": {},
            "tcp": lines | {"login": "ID {serial}"},
            "udp": lines | {"identity": "payload"},
        }
        parts = [
            _table(protocol, protocol, {"host": "127.0.0.1", "port": self.ports[protocol]} | settings)
            for protocol, settings in own.items()
            if protocol in self.counts
        ]
        parts += [
            _table("serial", name, lines | {"port": self.place(name), "device": f"serial:{name}", "baud": 115_200})
            for name in self.names("serial")
        ]
        if "modbus" in self.counts:
            line = {"host": "127.0.0.1", "port": self.ports["modbus"], "interval_s": POLL_S, "timeout_s": 0.5}
            parts.append(_table("modbus", "modbus", line))
            parts += [_unit(number, name) for number, name in enumerate(self.names("modbus"), 1)]
        return "".join(parts)


def _table(kind: Protocol, name: str, settings: dict[str, Any]) -> str:
    return f"\n[[{kind}]]\n" + _rows({"name": name, "network": NETWORKS[kind]} | settings)


def _unit(number: int, name: str) -> str:
    registers = RegisterMap(PROFILES[PROFILE]).tables()
    return (
        "\n[[modbus.units]]\n"
        + _rows({"unit": number, "device": f"serial:{name}"})
        + "".join(
            itertools.chain.from_iterable(("\n[[modbus.units.registers]]\n", _rows(register)) for register in registers)
        )
    )


def _rows(settings: dict[str, Any]) -> str:
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
