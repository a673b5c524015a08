"""Locks of transactions: exclusive or shared, held to the end, with circles found as they close."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable


class CircleError(Exception):
    """This transaction would wait for others that wait for it."""


class Holder:
    """A transaction, as far as locks go."""

    def __init__(self) -> None:
        self.held: dict[Hashable, bool] = {}
        """Name to whether it is exclusive."""
        self.wants: Hashable = None


class Locks:
    def __init__(self) -> None:
        self._holders: dict[Hashable, dict[Holder, bool]] = {}
        self._changed: dict[Hashable, asyncio.Event] = {}

    def is_free(self, holder: Holder, name: Hashable, *, exclusive: bool = True) -> bool:
        """Whether it could be taken without waiting."""
        others = [mode for other, mode in self._holders.get(name, {}).items() if other is not holder]
        return not any(others) and not (exclusive and others)

    async def take(self, holder: Holder, name: Hashable, *, exclusive: bool = True) -> None:
        """Waits for it. Raises CircleError."""
        if holder.held.get(name, False) or (name in holder.held and not exclusive):
            return
        while not self.is_free(holder, name, exclusive=exclusive):
            holder.wants = name
            if self._circle(holder):
                holder.wants = None
                raise CircleError(f"waiting for {name} closes a circle")
            event = self._changed.setdefault(name, asyncio.Event())
            try:
                await event.wait()
            finally:
                holder.wants = None
        self._holders.setdefault(name, {})[holder] = exclusive
        holder.held[name] = exclusive

    def release(self, holder: Holder) -> None:
        """All that it holds."""
        for name in holder.held:
            holders = self._holders[name]
            del holders[holder]
            if not holders:
                del self._holders[name]
            event = self._changed.pop(name, None)
            if event is not None:
                event.set()
        holder.held.clear()

    def _circle(self, start: Holder) -> bool:
        seen: set[int] = set()
        to_do = [start]
        while to_do:
            holder = to_do.pop()
            for other in self._holders.get(holder.wants, {}) if holder.wants is not None else ():
                if other is start and holder is not start:
                    return True
                if other is not holder and id(other) not in seen:
                    seen.add(id(other))
                    to_do.append(other)
        return False
