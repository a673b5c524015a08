"""The part of a gateway's configuration that the cloud may push: its listeners. The rest belongs to whoever owns the
machine."""

from __future__ import annotations

from typing import Final

SECTIONS: Final = frozenset({"mqtt", "coap", "http", "tcp", "udp", "serial", "modbus", "broker"})
"""Listeners, by kind; a pushed configuration takes the place of all of them."""
TOML_BYTES_MAX: Final = 64 * 1024
"""Of a pushed configuration: hundreds of listeners, in one frame of the link."""
CHANGES_MAX: Final = 512
"""Listeners of which a gateway tells what became of them; those that failed come first."""
