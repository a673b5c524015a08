"""What the log asks of a disk: few operations, each with what it promises about a crash, so that a simulated disk can
keep the same promises and break everything else."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class Lock(Protocol):
    def close(self) -> None:
        """Gives it back."""
        ...


class SyncedFile(Protocol):
    """A file open for writing."""

    def write(self, parts: Sequence[bytes], offset: int) -> None:
        """Writes the parts one behind the other at `offset`; when it returns, they survive a crash. When it raises
        OSError, or the machine crashes before, any part of them may be found there, in no order."""
        ...

    def close(self) -> None: ...


class Disk(Protocol):
    """All methods may block and raise OSError; each may be called from any thread."""

    def lock(self, path: Path) -> Lock:
        """Keeps other processes from locking the same path until closed, and makes its directory if there is none.
        Raises BlockingIOError if another holds it."""
        ...

    def sizes(self, directory: Path) -> dict[str, int]:
        """The directory's files, by name, and their sizes in bytes."""
        ...

    def create(self, path: Path, size_bytes: int) -> None:
        """A new file of zeros, with its room allocated; it and its name survive a crash. Raises FileExistsError.
        On failure nothing is left behind."""
        ...

    def open(self, path: Path) -> SyncedFile:
        """Opens an existing file for writing."""
        ...

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """Up to `length` bytes; fewer only at the file's end. Raises FileNotFoundError."""
        ...

    def truncate(self, path: Path, size_bytes: int) -> None:
        """Cuts the file; when it returns, no crash undoes it."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Gives a file another name in its directory, and with it the place of a file that has it. A crash leaves
        either both as they were or this done; when it returns, it is done."""
        ...

    def remove(self, paths: Sequence[Path]) -> None:
        """Removes those of the files, all in one directory, that exist; when it returns, no crash brings them back."""
        ...


class RealDisk:
    """The machine's own."""

    def lock(self, path: Path) -> Lock:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return _RealLock(descriptor)

    def sizes(self, directory: Path) -> dict[str, int]:
        with os.scandir(directory) as found:
            return {entry.name: entry.stat().st_size for entry in found if entry.is_file(follow_symlinks=False)}

    def create(self, path: Path, size_bytes: int) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size_bytes)
            os.fsync(descriptor)
        except OSError:
            path.unlink()
            raise
        finally:
            os.close(descriptor)
        _sync_directory(path.parent)

    def open(self, path: Path) -> SyncedFile:
        return _RealFile(path)

    def read(self, path: Path, offset: int, length: int) -> bytes:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _read(descriptor, offset, length)
        finally:
            os.close(descriptor)

    def truncate(self, path: Path, size_bytes: int) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(descriptor, size_bytes)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        source.replace(target)
        _sync_directory(target.parent)

    def remove(self, paths: Sequence[Path]) -> None:
        for path in paths:
            path.unlink(missing_ok=True)
        if paths:
            _sync_directory(paths[0].parent)


class _RealLock:
    """Belongs to the open file: keeps out a second opening in this process too; a killed process holds nothing."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        os.close(self._descriptor)


class _RealFile:
    """O_DSYNC makes each write what write and fdatasync would be, in one system call: a thread that waits for the
    interpreter's lock after each call waits half as often."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_DSYNC | os.O_CLOEXEC)

    def write(self, parts: Sequence[bytes], offset: int) -> None:
        written = os.pwritev(self._descriptor, parts, offset)
        size = sum(map(len, parts))
        if written < size:
            rest = memoryview(b"".join(parts))
            while written < size:
                count = os.pwrite(self._descriptor, rest[written:], offset + written)
                if not count:
                    raise OSError(errno.EIO, "the disk takes no more bytes and says no reason")
                written += count

    def close(self) -> None:
        os.close(self._descriptor)


def _read(descriptor: int, offset: int, length: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    if len(data) in (0, length):
        return data
    parts = [data]
    length -= len(data)
    while data and length:
        offset += len(data)
        data = os.pread(descriptor, length, offset)
        length -= len(data)
        parts.append(data)
    return b"".join(parts)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
