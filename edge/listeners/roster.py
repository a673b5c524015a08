"""The listeners that run, each with the section that it runs by; they change while others go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from edge.listeners.config import ListenerConfig
from edge.listeners.listener import Listener
from tidegate.console import UserError
from tidegate.logs import get_logger

Section = tuple[str, ListenerConfig]
"""Kind and configuration."""
Make = Callable[[str, ListenerConfig], Listener]

_log = get_logger("edge.listeners")


class Change(msgspec.Struct, frozen=True):
    """What became of one listener."""

    name: str
    what: str
    """kept, started, restarted, closed; rolled back (the new section did not start, the old one runs), not started, or
    failed (neither does)."""
    reason: str = ""

    @property
    def is_failure(self) -> bool:
        return self.what in ("rolled back", "not started", "failed")


class _Post(msgspec.Struct):
    section: Section
    listener: Listener
    files: dict[Path, tuple[int, int, int]]


class Roster:
    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        """Those that are configured, in their order. One object for the gateway's life, changed in place."""
        self._make: Make
        self._posts: dict[str, _Post] = {}

    def fill(self, sections: Sequence[Section], make: Make) -> None:
        """Makes them; nothing listens yet. Raises UserError as their kinds do."""
        self._make = make
        self._posts = {section[1].name: _post(section, make) for section in sections}
        self.listeners[:] = [post.listener for post in self._posts.values()]

    def refill(self, sections: Sequence[Section]) -> None:
        """Others than those that did not start."""
        self.fill(sections, self._make)

    async def start(self) -> None:
        """All of them, or none. Raises UserError."""
        for at, listener in enumerate(self.listeners):
            try:
                await listener.start()
            except BaseException:
                for started in reversed(self.listeners[:at]):
                    await started.close()
                raise

    async def close(self) -> None:
        for listener in reversed(self.listeners):
            await listener.close()

    def changed(self, sections: Sequence[Section]) -> list[Section]:
        """Those that would be started."""
        return [section for section in sections if not self._is_kept(section)]

    async def change_to(self, sections: Sequence[Section]) -> list[Change]:
        """Listeners whose section did not change keep their connections. What goes is closed before anything is
        started, as ports may move from one to another; what does not start goes back to the section that it had."""
        kept = {section[1].name for section in sections if self._is_kept(section)}
        wanted = {section[1].name for section in sections}
        leaving = [post for name, post in self._posts.items() if name not in kept]
        await asyncio.gather(*(_closed(post.listener) for post in leaving))
        posts: dict[str, _Post] = {}
        changes = []
        for section in sections:
            name = section[1].name
            old = self._posts.get(name)
            if name in kept and old is not None:
                posts[name] = old
                changes.append(Change(name, "kept"))
                continue
            post, change = await self._start(section, old)
            changes.append(change)
            if post is not None:
                posts[name] = post
        changes += [Change(name, "closed") for name in self._posts if name not in wanted]
        self._posts = posts
        self.listeners[:] = [post.listener for post in posts.values()]
        return changes

    def _is_kept(self, section: Section) -> bool:
        post = self._posts.get(section[1].name)
        return post is not None and post.section == section and post.files == _files(section[1])

    async def _start(self, section: Section, old: _Post | None) -> tuple[_Post | None, Change]:
        name = section[1].name
        post, reason = await self._try(section)
        if post is not None:
            return post, Change(name, "started" if old is None else "restarted")
        if old is None:
            return None, Change(name, "not started", reason)
        back, why = await self._try(old.section)
        if back is not None:
            return back, Change(name, "rolled back", reason)
        return old, Change(
            name, "failed", f"{reason}; and by its old section: {why}"
        )  # it is seen that it does not listen

    async def _try(self, section: Section) -> tuple[_Post | None, str]:
        """The listener, started; or why it is not."""
        listener = None
        try:
            post = _post(section, self._make)
            listener = post.listener
            await listener.start()
            return post, ""
        except Exception as error:  # noqa: BLE001 - whatever a kind raises, the other listeners and its old section go on
            if not isinstance(error, UserError):
                _log.exception("a listener failed to start", listener=section[1].name)
            if listener is not None:
                await _closed(listener)
            return None, str(error) or type(error).__name__


async def _closed(listener: Listener) -> None:
    try:
        await listener.close()
    except Exception:  # noqa: BLE001 - it goes in any case
        _log.exception("a listener failed to close", listener=listener.name)


def _post(section: Section, make: Make) -> _Post:
    return _Post(section, make(*section), _files(section[1]))


def _files(config: ListenerConfig) -> dict[Path, tuple[int, int, int]]:
    """The files that a section names, as they are: a renewed certificate is a change too."""
    found = {}
    for path in config.files.values():
        if path.exists():
            status = path.stat()
            found[path] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found
