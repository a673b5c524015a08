"""The registry's replica on the gateway's disk: what the cloud sent last, so that devices are known from the first
second of a start without a link."""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from edge.sqlite_file import BUSY_S, is_damage, open_file, remove, transaction
from protocols.errors import UNREADABLE
from sync.registry import Blueprint, Device, Network, Registry, RegistryChange
from tidegate.logs import get_logger

_KINDS: Final = {"network": Network, "blueprint": Blueprint, "device": Device}
_SCHEMA: Final = """
PRAGMA cache_size = -256; -- KiB: it is read once, at the start
CREATE TABLE IF NOT EXISTS entry (kind TEXT, key TEXT, body BLOB, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (id INTEGER PRIMARY KEY CHECK (id = 1), project_id TEXT, revision INTEGER);
"""
_log = get_logger("edge.replica")


class Replica:
    """A Registry, and its copy in SQLite, written by a thread of its own. A copy that cannot be used never keeps the
    gateway from starting: a damaged one is dropped, and the cloud sends a snapshot.
    """

    def __init__(self, path: Path, project_id: str) -> None:
        self.registry = Registry(project_id)
        """One object for the gateway's life, changed in place."""
        self._path = path
        self._thread = ThreadPoolExecutor(1, "replica")
        self._database: sqlite3.Connection | None = None
        self._lacking = False
        """The copy missed a change: the next one writes it anew."""
        try:
            self._database = open_file(path, _SCHEMA)
            _load(self._database, self.registry)
        except (sqlite3.Error, *UNREADABLE, KeyError, OSError) as error:
            self._give_up(error)

    async def apply(self, change: RegistryChange) -> None:
        """Takes a change into memory at once, and onto disk before it returns; one call at a time. Raises
        StaleReplicaError: ask for a snapshot. A disk that does not take it is logged: the change holds in memory, and
        comes to the disk with the next one."""
        if change.base > 0 and change.revision <= self.registry.revision:
            return
        self.registry.apply(change)
        if self._lacking:
            change = self.registry.snapshot()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._write, change)

    def has_network(self, network_id: str) -> bool:
        """True also while the cloud has not yet said which there are."""
        return self.registry.revision == 0 or network_id in self.registry.networks

    def close(self) -> None:
        self._thread.shutdown()
        self._close()

    def _write(self, change: RegistryChange) -> None:
        try:
            if self._database is None:
                self._database = open_file(self._path, _SCHEMA)
            _put(self._database, change)
            self._lacking = False
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Nothing is read from the copy any more until it is written anew."""
        self._lacking = True
        self._close()
        damaged = is_damage(error)
        if damaged:
            remove(self._path)
        _log.warning("replica dropped" if damaged else "replica not usable", path=str(self._path), reason=str(error))

    def _close(self) -> None:
        if self._database is not None:
            database, self._database = self._database, None
            database.close()


def networks_of(path: Path) -> dict[str, Network] | None:
    """By id, as the copy on disk has them, whether a gateway runs or not; None: there is no copy that can be read."""
    try:
        database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY_S)
    except sqlite3.Error:
        return None
    try:
        bodies = database.execute("SELECT body FROM entry WHERE kind = 'network'").fetchall()
        found = [msgspec.json.decode(body, type=Network) for (body,) in bodies]
    except (sqlite3.Error, *UNREADABLE):
        return None
    finally:
        database.close()
    return {network.id: network for network in found}


def _load(database: sqlite3.Connection, registry: Registry) -> None:
    state = database.execute("SELECT project_id, revision FROM state").fetchone()
    if state is None or state[0] != registry.project_id:
        return
    networks: list[Network] = []
    blueprints: list[Blueprint] = []
    devices: list[Device] = []
    for kind, body in database.execute("SELECT kind, body FROM entry"):
        match msgspec.json.decode(body, type=_KINDS[kind]):
            case Network() as network:
                networks.append(network)
            case Blueprint() as blueprint:
                blueprints.append(blueprint)
            case Device() as device:
                devices.append(device)
    registry.apply(RegistryChange(registry.project_id, 0, state[1], tuple(networks), tuple(blueprints), tuple(devices)))


def _put(database: sqlite3.Connection, change: RegistryChange) -> None:
    """All of the change, or nothing."""
    gone = [("network", key) for key in change.gone_networks]
    gone += [("blueprint", key) for key in change.gone_blueprints]
    gone += [("device", str(key)) for key in change.gone_devices]
    held: list[tuple[str, str, msgspec.Struct]] = [("network", item.id, item) for item in change.networks]
    held += [("blueprint", item.id, item) for item in change.blueprints]
    held += [("device", str(item.id), item) for item in change.devices]
    with transaction(database):
        if change.base == 0:
            database.execute("DELETE FROM entry")
        database.executemany("DELETE FROM entry WHERE kind = ? AND key = ?", gone)
        database.executemany(
            "INSERT OR REPLACE INTO entry VALUES (?, ?, ?)",
            ((kind, key, msgspec.json.encode(item)) for kind, key, item in held),
        )
        database.execute("INSERT OR REPLACE INTO state VALUES (1, ?, ?)", (change.project_id, change.revision))
