"""How gateways stand: their last word, and up to when what they received is complete here. Written for many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from cloud.db import standings
from cloud.db.database import Database, DatabaseError
from cloud.db.standings import Told
from cloud.model.complete import Completion, told_until
from sync.link.frames import Standing
from tidegate.logs import get_logger
from tidegate.pause import pause

WRITE_EVERY_S: Final = 2.0
"""How old what is shown may be, beside the gateway's own 2 s; one statement for all gateways."""

_log = get_logger("standings")


class GatewayName(msgspec.Struct, frozen=True):
    project_id: str
    gateway_id: str
    source_id: int


class _Held(msgspec.Struct):
    completion: Completion
    standing: Standing | None = None
    """Not written yet; None: it is."""
    told_ms: int | None = None
    """Up to when it says that all is sent; None: it was taken into account."""
    complete_ms: int | None = None
    """Up to when all is complete here, not written yet; None: it is."""

    @property
    def settled(self) -> bool:
        """Whether there is nothing left to write or to wait for."""
        return self.standing is None and self.told_ms is None and self.complete_ms is None and not self.completion.waits


class Standings:
    """Of the gateways that are connected to this process, and of those whose last word is not dealt with yet."""

    def __init__(self, database: Database, wall_ms: Callable[[], int]) -> None:
        self._database = database
        self._wall_ms = wall_ms
        self._held: dict[GatewayName, _Held] = {}

    def tell(self, name: GatewayName, standing: Standing) -> None:
        """What a gateway says of itself now."""
        held = self._held.setdefault(name, _Held(Completion()))
        held.standing = standing
        held.told_ms = told_until(standing.at_ms, standing.complete_ms, self._wall_ms())

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await pause(stop, WRITE_EVERY_S)
            try:
                await self.write()
            except DatabaseError as error:
                _log.warning("standings not written yet", reason=str(error))

    async def write(self) -> None:
        """Writes what was told since, and what has become complete. Raises DatabaseError: nothing is forgotten."""
        taken = {name: held.told_ms for name, held in self._held.items()}
        if not taken:
            return
        async with self._database.connection() as conn:
            waiting = await standings.unwritten(conn, {name.source_id for name in taken})
        told = []
        for name, told_ms in taken.items():
            held = self._held[name]
            if held.told_ms == told_ms:
                held.told_ms = None
            complete_ms = held.completion.advance(told_ms, waiting.get(name.source_id, {}))
            held.complete_ms = held.complete_ms if complete_ms is None else complete_ms
            if held.standing is not None or held.complete_ms is not None:
                told.append((name, Told(name.project_id, name.gateway_id, held.standing, held.complete_ms)))
        if told:
            await self._database.run(lambda conn: standings.keep(conn, [one for _, one in told]))
        for name, one in told:
            held = self._held[name]
            if held.standing is one.standing:
                held.standing = None
            if held.complete_ms == one.complete_until:
                held.complete_ms = None
        for name in taken:
            if self._held[name].settled:
                del self._held[name]
