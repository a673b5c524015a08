"""Listeners that only remember what was done to them, of a kind whose sections say how that goes."""

from __future__ import annotations

from edge.listeners.config import ListenerConfig
from edge.listeners.listener import ListenerCounters
from edge.listeners.refusals import Refusals
from tidegate.console import UserError


class FakeListener:
    kind = "mqtt"
    trouble = ""

    def __init__(self, config: ListenerConfig, done: list[str], broken: set[str]) -> None:
        """`done`: what was done to any of them, in order; `broken`: networks on which nobody can start."""
        self.name = config.name
        self.network_id = config.network
        self.place = "nowhere"
        self.port = 0
        self.is_listening = False
        self.counters = ListenerCounters()
        self.refusals = Refusals(config.name)
        self._done = done
        self._broken = broken

    async def start(self) -> None:
        if self.network_id in self._broken:
            raise UserError(f"cannot start on {self.network_id}")
        self.is_listening = True
        self._done.append(f"start {self.name} on {self.network_id}")

    async def close(self) -> None:
        if self.is_listening:
            self.is_listening = False
            self._done.append(f"close {self.name} on {self.network_id}")

    def recheck(self) -> None: ...

    def way(self, alias_key: str, alias: str) -> None:
        return None
