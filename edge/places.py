"""At which listener each device was last, over restarts: a command that waits for a device somewhere must not go to a
way that takes commands for anybody, only because the gateway was started again. A hint: where the file is lost, or a
minute old, devices are where they are heard next."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import msgspec

from edge.data_folder import write_whole
from protocols.errors import UNREADABLE
from tidegate.logs import get_logger

DEVICES_MAX: Final = 20_000
"""That are remembered, as many as of which presence is known: 1 MB of file. One that is more is not."""
WRITE_S: Final = 60.0
"""Between two writes of what changed: a device that is at two listeners in turn must not wear out the disk."""

Device = tuple[str, str, str]
"""Network, alias key, alias."""

_log = get_logger("edge.places")


class Places:
    def __init__(self, path: Path) -> None:
        """A file that cannot be read never keeps the gateway from starting."""
        self._path = path
        self._listeners: dict[Device, str] = _load(path)
        self._has_changed = False

    def last(self, device: Device) -> str:
        """The listener's name; empty: nobody knows."""
        return self._listeners.get(device, "")

    def note(self, device: Device, listener: str) -> None:
        known = self._listeners.get(device)
        if known == listener or (known is None and len(self._listeners) >= DEVICES_MAX):
            return
        self._listeners[device] = listener
        self._has_changed = True

    async def run(self) -> None:
        """Until cancelled: writes now and then, and at the end."""
        try:
            while True:
                await asyncio.sleep(WRITE_S)
                await asyncio.to_thread(self._write, self._changes())
        finally:
            self._write(self._changes())

    def _changes(self) -> bytes:
        """The whole of it; empty: it is on disk."""
        if not self._has_changed:
            return b""
        self._has_changed = False
        return msgspec.json.encode([(*device, listener) for device, listener in self._listeners.items()])

    def _write(self, data: bytes) -> None:
        if not data:
            return
        try:
            write_whole(self._path, data)
        except OSError as error:
            _log.warning("places of devices are not on disk", path=str(self._path), reason=str(error))


def _load(path: Path) -> dict[Device, str]:
    try:
        rows = msgspec.json.decode(path.read_bytes(), type=list[tuple[str, str, str, str]])
    except FileNotFoundError:
        return {}
    except (OSError, *UNREADABLE) as error:
        _log.warning("places of devices cannot be read", path=str(path), reason=str(error))
        return {}
    return {row[:3]: row[3] for row in rows}
