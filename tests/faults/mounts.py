"""Small file systems of one's own: in memory, or ext4 in a file, which can be filled, frozen and made read-only."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

MIB = 1024 * 1024


class Mount:
    def __init__(self, where: Path, image: Path | None) -> None:
        self.where = where
        self._image = image

    async def fill(self, leave_bytes: int = 0) -> Path:
        """With a file that takes all room but so much; the file."""
        filling = self.where / "somebody-else"
        with contextlib.suppress(subprocess.CalledProcessError):  # it takes what there is, and then fails
            await run("dd", "if=/dev/zero", f"of={filling}", "bs=64k")
        if leave_bytes:
            size = filling.stat().st_size
            await run("truncate", "-s", str(max(0, size - leave_bytes)), filling)
        return filling

    async def break_off(self) -> None:
        """Read-only at once, whoever writes: what the kernel does with a file system that it finds errors in."""
        await run("mount", "-o", "remount,abort", self.where)

    async def mount_again(self) -> None:
        """Writable; nobody may use it meanwhile."""
        assert self._image is not None
        await run("umount", self.where)
        await run("mount", "-o", "loop", self._image, self.where)

    async def freeze(self) -> None:
        """Every write waits."""
        await run("fsfreeze", "-f", self.where)

    async def thaw(self) -> None:
        await run("fsfreeze", "-u", self.where)


@contextlib.asynccontextmanager
async def in_memory(where: Path, size_bytes: int) -> AsyncIterator[Mount]:
    where.mkdir()
    await run("mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=755", "tidegate-faults", where)
    async with _mounted(Mount(where, None)) as mount:
        yield mount


@contextlib.asynccontextmanager
async def in_file(where: Path, size_bytes: int) -> AsyncIterator[Mount]:
    """ext4 on a loop device."""
    image = where.with_suffix(".img")
    where.mkdir()
    with image.open("wb") as file:
        file.truncate(size_bytes)
    await run("mkfs.ext4", "-q", "-F", "-m", "0", image)
    await run("mount", "-o", "loop", image, where)
    async with _mounted(Mount(where, image)) as mount:
        yield mount


@contextlib.asynccontextmanager
async def _mounted(mount: Mount) -> AsyncIterator[Mount]:
    try:
        yield mount
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            await run("umount", "--lazy", mount.where)


async def run(*words: str | Path) -> None:
    """A program to its end. Raises CalledProcessError."""
    process = await asyncio.create_subprocess_exec(
        *map(str, words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, " ".join(map(str, words)), output)
