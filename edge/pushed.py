"""Listeners that the cloud pushes, in place of all listeners of the gateway's own file.

They are put in force whole, or not at all. What worked last is kept in `pushed.json` of the data folder, with its
revision and what the cloud is to be told of it: one file, so that they go together. At a start that cannot use it, the
gateway runs by its own file: nothing that was pushed ever keeps it from starting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from edge.config import EdgeConfig
from edge.data_folder import write_whole
from edge.listeners.catalog import KINDS
from edge.listeners.roster import Change, Make, Roster
from edge.reload import Reload, Reloaded
from protocols.errors import UNREADABLE
from sync.configuration import CHANGES_MAX, SECTIONS
from sync.link.frames import Configuration, ConfigurationResult, ListenerChange
from sync.link.protocol import clip
from tidegate.config import loads, parse
from tidegate.console import UserError
from tidegate.logs import get_logger

NAME: Final = "pushed configuration"
"""What errors call it."""

_log = get_logger("edge.pushed")


class Kept(msgspec.Struct, frozen=True):
    """What is in the file."""

    result: ConfigurationResult
    """Of the one that came last."""
    toml: str | None
    """The last one that worked; None: the listeners are the gateway's own."""


class Pushed:
    """The link's Configured."""

    def __init__(self, path: Path, own: EdgeConfig) -> None:
        """`own`: the gateway's file. What was kept and cannot be used is warned of, and never an error."""
        self.config = own
        """To be in force at the start."""
        self._path = path
        self._own = own
        self._kept = _load(path)
        self._trouble: ConfigurationResult | None = None
        """Why what is kept is not in force."""
        self._reload: Reload
        self._tell: Callable[[ConfigurationResult], None]
        self._wanted: Configuration | None = None
        self._came = asyncio.Event()
        self._turn = asyncio.Lock()
        if self._kept is not None and self._kept.toml is not None:
            try:
                self.config = merged(own, self._kept.toml)
            except UserError as error:  # it was kept by another version
                self._fall_back(error)

    @property
    def revision(self) -> int:
        """Of the one that came last; 0: none did."""
        return self._kept.result.revision if self._kept is not None else 0

    @property
    def is_in_force(self) -> bool:
        return self._kept is not None and self._kept.toml is not None and self._trouble is None

    def attach(self, reload: Reload, tell: Callable[[ConfigurationResult], None]) -> None:
        """`tell`: the cloud, if the link is up."""
        self._reload, self._tell = reload, tell

    def fill(self, roster: Roster, make: Make) -> None:
        """Makes the listeners for the start. Raises UserError for those of the own file."""
        if self.is_in_force:
            try:
                roster.fill(self.config.listeners, make)
                return
            except Exception as error:  # noqa: BLE001 - whatever a kind raises, the gateway starts by its own file
                self._fall_back(error)
        roster.fill(self.config.listeners, make)

    async def start(self, roster: Roster, before: Callable[[], None]) -> None:
        """Starts the listeners that were made; `before` is called first, for each set of them. Raises UserError for
        those of the own file."""
        before()
        try:
            await roster.start()
            return
        except Exception as error:  # as in `fill`: whatever a pushed kind raises; of the own file it is raised again
            if not self.is_in_force:
                raise
            self._fall_back(error)
        roster.refill(self.config.listeners)
        before()
        await roster.start()

    async def read(self, load: Callable[[], EdgeConfig], origin: str) -> Reloaded:
        """The own file again, as Reload.read; pushed listeners stay in force."""
        async with self._turn:
            seen = await self._reload.read(lambda: self._over(load()), origin)
            if self.is_in_force:
                note = f"the listeners are those that the cloud pushed (revision {self.revision}), not the file's"
                seen = self._reload.last = msgspec.structs.replace(seen, note=note)
            return seen

    def wanted(self, configuration: Configuration) -> None:
        self._wanted = configuration
        self._came.set()

    def result(self) -> ConfigurationResult | None:
        return self._trouble or (self._kept.result if self._kept is not None else None)

    async def run(self) -> None:
        """Until cancelled: puts in force what comes, the newest only."""
        while True:
            await self._came.wait()
            self._came.clear()
            async with self._turn:
                wanted, self._wanted = self._wanted, None
                if wanted is not None and wanted.revision != self.revision:
                    await self._take(wanted)
            if (result := self.result()) is not None:
                self._tell(result)

    async def _take(self, wanted: Configuration) -> None:
        before = self._reload.config
        result = await self._try(wanted, before)
        if not result.refused:
            try:
                self._keep(Kept(result, wanted.toml))
                self._trouble = None
                return
            except OSError as error:
                await self._reload.apply(before, f"back from revision {wanted.revision}")
                refused = f"it cannot be kept in {self._path}: {error.strerror or error}"
                result = _refused(wanted.revision, UserError(refused, "see that the disk has room"), result.listeners)
        _log.error("pushed configuration refused", revision=wanted.revision, reason=result.refused)
        kept = Kept(result, self._kept.toml if self._kept is not None else None)
        if self._trouble is not None:
            self._trouble = result
        try:
            self._keep(kept)
        except OSError as error:  # after the next start the cloud pushes it once more
            _log.warning("refusal not kept", path=str(self._path), reason=str(error))
            self._kept = kept

    async def _try(self, wanted: Configuration, before: EdgeConfig) -> ConfigurationResult:
        """In force, or all as it was."""
        try:
            config = self._own if wanted.toml is None else merged(self._own, wanted.toml)
        except UserError as error:
            return _refused(wanted.revision, error)
        seen = await self._reload.apply(config, f"the cloud, revision {wanted.revision}")
        if seen.refused:
            return _refused(wanted.revision, UserError(seen.refused, seen.remedy))
        changes = _told(seen.listeners)
        if not seen.is_in_force:
            await self._reload.apply(before, f"back from revision {wanted.revision}")
            failed = next(change for change in seen.listeners if change.is_failure)
            why = UserError(f"listener {failed.name!r}: {failed.reason}", "mend that section and push it again")
            return _refused(wanted.revision, why, changes)
        return ConfigurationResult(wanted.revision, listeners=changes)

    def _over(self, own: EdgeConfig) -> EdgeConfig:
        self._own = own
        toml = self._kept.toml if self._kept is not None else None
        return merged(own, toml) if toml is not None and self.is_in_force else own

    def _fall_back(self, error: Exception) -> None:
        self.config = self._own
        why = error if isinstance(error, UserError) else UserError(str(error) or type(error).__name__)
        _log.error("pushed configuration not used", revision=self.revision, reason=why.message)
        refused = f"not used at the start, the gateway runs by its own file: {why.message}"
        self._trouble = _refused(self.revision, UserError(refused, why.remedy))

    def _keep(self, kept: Kept) -> None:
        write_whole(self._path, msgspec.json.encode(kept))
        self._kept = kept


def merged(own: EdgeConfig, toml: str) -> EdgeConfig:
    """`own` with the listeners of `toml` in place of its own. Raises UserError."""
    for section in parse(NAME, toml):
        if section not in SECTIONS:
            raise UserError(f"{NAME}: {section} is not for the cloud to set", f"allowed are {', '.join(KINDS)}")
    pushed = loads(EdgeConfig, toml, name=NAME)
    return msgspec.structs.replace(own, **{kind: getattr(pushed, kind) for kind in KINDS})


def _refused(revision: int, error: UserError, changes: tuple[ListenerChange, ...] = ()) -> ConfigurationResult:
    return ConfigurationResult(revision, clip(error.message), clip(error.remedy), changes)


def _told(changes: list[Change]) -> tuple[ListenerChange, ...]:
    first = sorted(changes, key=lambda change: not change.is_failure)[:CHANGES_MAX]
    return tuple(ListenerChange(change.name, change.what, clip(change.reason)) for change in first)


def _load(path: Path) -> Kept | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Kept)
    except FileNotFoundError:
        return None
    except (OSError, *UNREADABLE) as error:
        _log.warning("what the cloud pushed cannot be read", path=str(path), reason=str(error))
        return None
