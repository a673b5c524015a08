"""The two files of the state (state.py), written in turn."""

from __future__ import annotations

from pathlib import Path

from sync.log.disk import Disk, SyncedFile
from sync.log.settings import STATE_FILE_BYTES
from sync.log.state import state_name, state_names


class StateFiles:
    """Used from one thread at a time."""

    def __init__(self, disk: Disk, directory: Path) -> None:
        self._disk = disk
        self._directory = directory
        self._files: dict[str, SyncedFile] = {}

    def write(self, generation: int, data: bytes) -> None:
        """Returns once it is synced. Raises OSError; then the other file holds what was remembered before."""
        self._open()
        name = state_name(generation)
        file = self._files[name]
        try:
            file.write((data,), 0)
        except OSError:
            # A file whose sync failed is never written again.
            del self._files[name]
            file.close()
            self._disk.remove([self._directory / name])
            raise

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _open(self) -> None:
        """Sees to it that both files are there, with their room."""
        missing = [name for name in state_names() if name not in self._files]
        sizes = self._disk.sizes(self._directory) if missing else {}
        for name in missing:
            path = self._directory / name
            if sizes.get(name) != STATE_FILE_BYTES:
                self._disk.remove([path])
                self._disk.create(path, STATE_FILE_BYTES)
            self._files[name] = self._disk.open(path)
