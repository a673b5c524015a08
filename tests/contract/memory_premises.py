"""The worlds' store in memory, as the contract suite looks at it."""

from __future__ import annotations

import uuid

from cloud.db.current import CurrentRow
from cloud.db.history import HistoryRow
from cloud.model.command import Standing
from cloud.model.rejected import RejectFilter, RejectReplay, RejectRow
from cloud.model.unresolved import InboxRow
from cloud.services.store import Store
from tests.contract.stores import ALIAS_KEY, NETWORK, DeadLetter
from tests.worlds.store import HeldCommand, MemoryStore, MemoryTransaction


class MemoryPremises:
    """The Premises of stores.py."""

    def __init__(self) -> None:
        self._memory = MemoryStore()
        self._tables = self._memory.tables
        self.store: Store = self._memory

    async def add_project(self, project_id: str) -> int:
        source_id = len(self._tables.projects) + 1
        self._tables.projects[source_id] = project_id
        self._tables.revisions[project_id] = 1
        return source_id

    async def add_device(self, project_id: str, alias: str) -> int:
        device_id = len(self._tables.aliases) + 1
        await self._change(project_id)
        self._tables.aliases[project_id, NETWORK, ALIAS_KEY, alias] = device_id
        return device_id

    async def remove_device(self, project_id: str, alias: str) -> None:
        await self._change(project_id)
        del self._tables.aliases[project_id, NETWORK, ALIAS_KEY, alias]

    async def _change(self, project_id: str) -> None:
        tx = MemoryTransaction(self._memory)
        await self._memory.locks.take(tx, ("project", project_id))
        self._tables.revisions[project_id] += 1
        self._memory.locks.release(tx)

    async def fates(self, hop: str, source_id: int, epoch: int) -> dict[str, int]:
        progress = self._tables.progress.get((hop, source_id, epoch))
        return {fate: number for fate, number in progress.counts.items() if number} if progress else {}

    async def history(self, project_id: str, device_id: int) -> list[HistoryRow]:
        rows = [row for row in self._tables.history.values() if row.device_id == device_id]
        return [
            HistoryRow(row.event_time, row.id, row.time, row.received_time, row.flags, row.data, row.time_error_ms)
            for row in sorted(rows, key=lambda row: (row.event_time, row.id))
        ]

    async def current(self, project_id: str, device_id: int) -> list[CurrentRow]:
        return [
            CurrentRow(attribute, held.value, held.event_time, held.received_time, held.id)
            for (device, attribute), held in sorted(self._tables.current.items())
            if device == device_id
        ]

    async def inbox(self, project_id: str) -> list[InboxRow]:
        held = sorted(self._tables.inbox.items(), reverse=True)
        return [each.row for _, each in held if each.project_id == project_id]

    async def misfits(self, project_id: str) -> list[tuple[bytes, str, int]]:
        return [
            (message_id, misfit.reason, misfit.count)
            for project, message_id, misfit in self._tables.misfits
            if project == project_id
        ]

    async def rejects(self, project_id: str) -> list[RejectRow]:
        return [
            held.row(seq)
            for seq, held in sorted(self._tables.rejects.items(), reverse=True)
            if held.project_id == project_id
        ]

    async def want_replay(self, project_id: str, wanted: RejectFilter) -> None:
        found = [
            row for row in await self.rejects(project_id) if wanted.takes(row.network_id, row.code, row.received_time)
        ]
        number = len(self._tables.reject_replays) + 1
        newest = max((row.seq for row in found), default=0)
        self._tables.reject_replays[number] = RejectReplay(number, project_id, wanted, newest, 0, len(found))

    async def add_command(self, project_id: str, device_id: int) -> str:
        command_id = str(uuid.UUID(int=len(self._tables.commands) + 1))
        self._tables.commands[command_id] = HeldCommand(project_id, device_id, Standing())
        return command_id

    async def command(self, project_id: str, device_id: int, command_id: str) -> tuple[Standing, bytes | None]:
        held = self._tables.commands[command_id]
        assert (held.project_id, held.device_id) == (project_id, device_id)
        return held.standing, held.answer

    async def presence(self, project_id: str, device_id: int) -> tuple[bool, str, int] | None:
        name = next(
            name for name, found in self._tables.aliases.items() if found == device_id and name[0] == project_id
        )
        held = self._tables.presence.get(name)
        return None if held is None else (held.online, held.reason, held.time)

    async def dead_letters(self, project_id: str) -> list[DeadLetter]:
        return [
            DeadLetter(held.hop, held.topic, held.detail, held.data)
            for held in self._tables.dead_letters
            if held.project_id == project_id
        ]
