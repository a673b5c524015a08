"""Changes the configuration of a gateway that runs: what is checked whole first, and never touches the log.

Listeners whose section did not change keep their connections. Everything else but the log's level takes effect at the
next start, and is named. Where a configuration comes from does not matter here: a file that is read again, or the cloud
(pushed.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from edge.config import EdgeConfig
from edge.listeners.catalog import KINDS
from edge.listeners.roster import Change, Roster
from edge.listeners.sockets import tls_context
from tidegate import logs
from tidegate.console import UserError

LIVE: Final = frozenset({"log_level", *KINDS})
"""Settings that take effect at once."""

_log = logs.get_logger("edge.reload")


class Reloaded(msgspec.Struct, frozen=True):
    """What became of a configuration."""

    number: int = 0
    """Since the start, from 1; 0: there was none yet."""
    origin: str = ""
    refused: str = ""
    """What is wrong with it, so that nothing was changed; empty: it is in force."""
    remedy: str = ""
    listeners: list[Change] = []
    needs_restart: list[str] = []
    """Settings that differ from those in force until the next start."""
    note: str = ""
    """What people should know beside it."""

    @property
    def is_in_force(self) -> bool:
        """All of it, as far as that goes without a restart."""
        return not self.refused and not any(change.is_failure for change in self.listeners)


class Reload:
    def __init__(self, config: EdgeConfig, roster: Roster, *, allow_files: Callable[[EdgeConfig], None]) -> None:
        """`allow_files`: asks the system for as many as the listeners of a configuration may need."""
        self.config = config
        """In force."""
        self.last = Reloaded()
        self.done: Callable[[], None] | None = None
        """Told when the listeners have changed: whoever names their ports."""
        self._roster = roster
        self._allow_files = allow_files
        self._turn = asyncio.Lock()

    async def read(self, load: Callable[[], EdgeConfig], origin: str) -> Reloaded:
        """Applies what `load` gives, or says why that cannot be used (UserError)."""
        try:
            config = load()
        except UserError as error:
            async with self._turn:
                return self._refuse(origin, error)
        return await self.apply(config, origin)

    async def apply(self, config: EdgeConfig, origin: str) -> Reloaded:
        """One at a time. `origin`: who wants it, for people."""
        async with self._turn:
            try:
                self._check(config)
            except UserError as error:
                return self._refuse(origin, error)
            self._allow_files(config)
            changes = await self._roster.change_to(config.listeners)
            if config.log_level != self.config.log_level:
                logs.configure(level=config.log_level)
            needs_restart = different(self.config, config)
            self.config = msgspec.structs.replace(self.config, **{name: getattr(config, name) for name in LIVE})
            if self.done is not None:
                self.done()
            return self._note(Reloaded(0, origin, "", "", changes, needs_restart))

    def _check(self, config: EdgeConfig) -> None:
        """Raises UserError for the first thing that would keep a listener from starting."""
        from edge.doctor.ports import occupied  # 1 MB that most gateways never need

        own = {(one.port, one.protocol) for _, listener in self.config.listeners for one in listener.needs.sockets}
        for _, listener in self._roster.changed(config.listeners):
            if listener.server_tls is not None:
                tls_context(listener.name, listener.server_tls)
            for wanted in listener.needs.sockets:
                if (wanted.port, wanted.protocol) not in own and (reason := occupied(wanted)):
                    raise UserError(f"listener {listener.name!r}: {reason}", "give it another port")

    def _refuse(self, origin: str, error: UserError) -> Reloaded:
        return self._note(Reloaded(0, origin, error.message, error.remedy))

    def _note(self, reloaded: Reloaded) -> Reloaded:
        self.last = msgspec.structs.replace(reloaded, number=self.last.number + 1)
        if reloaded.refused:
            _log.error("configuration refused", origin=reloaded.origin, reason=reloaded.refused, remedy=reloaded.remedy)
            return self.last
        for change in reloaded.listeners:
            if change.is_failure:
                _log.error("listener not changed", listener=change.name, what=change.what, reason=change.reason)
        changes = {change.name: change.what for change in reloaded.listeners}
        _log.info("configuration read", origin=reloaded.origin, listeners=changes, needs_restart=reloaded.needs_restart)
        return self.last


def different(old: EdgeConfig, new: EdgeConfig) -> list[str]:
    """Settings that take effect at the next start only, as dotted paths."""
    found = []
    for name in old.__struct_fields__:
        before, after = getattr(old, name), getattr(new, name)
        if name in LIVE or before == after:
            continue
        if isinstance(before, msgspec.Struct):
            found += [
                f"{name}.{below}"
                for below in before.__struct_fields__
                if getattr(before, below) != getattr(after, below)
            ]
        else:
            found.append(name)
    return found
