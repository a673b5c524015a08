"""What a device speaks: one file a protocol."""

from __future__ import annotations

from typing import Final

from firmware_sim.devices.carriers.carrier import Carrier
from firmware_sim.devices.carriers.coap import CoapCarrier
from firmware_sim.devices.carriers.http import HttpCarrier
from firmware_sim.devices.carriers.modbus import ModbusCarrier
from firmware_sim.devices.carriers.mqtt import MqttCarrier
from firmware_sim.devices.carriers.serial import SerialCarrier
from firmware_sim.devices.carriers.tcp import TcpCarrier
from firmware_sim.devices.carriers.udp import UdpCarrier
from firmware_sim.devices.roster import Protocol

CARRIERS: Final[dict[Protocol, type[Carrier]]] = {
    "mqtt": MqttCarrier,
    "coap": CoapCarrier,
    "http": HttpCarrier,
    "tcp": TcpCarrier,
    "udp": UdpCarrier,
    "serial": SerialCarrier,
    "modbus": ModbusCarrier,
}
