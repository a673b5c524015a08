"""The kinds of listeners that there are, each beside its section of the configuration.

A new protocol is a module or a package in this folder, with a configuration beside it (edge/config.py has a field for
it) and a row here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edge.listeners.config import ListenerConfig
    from edge.listeners.listener import Listener, Shared

KINDS: Final = {
    "mqtt": "edge.listeners.mqtt.listener",
    "http": "edge.listeners.http.listener",
    "tcp": "edge.listeners.tcp",
    "udp": "edge.listeners.udp",
    "serial": "edge.listeners.serial",
    "broker": "edge.listeners.broker.listener",
    "modbus": "edge.listeners.modbus.listener",
    "coap": "edge.listeners.coap.listener",
}
"""Section of the configuration to the module that has `make_listener(config, shared)`. A module is imported where a
listener of its kind is configured: protocol libraries cost a gateway without it nothing."""


def make_listener(kind: str, config: ListenerConfig, shared: Shared) -> Listener:
    """The listener of a section, not started."""
    made: Listener = importlib.import_module(KINDS[kind]).make_listener(config, shared)
    return made
