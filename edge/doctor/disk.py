"""The disk of the data folder: file system, room, and how long a sync takes, which every device waits for."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from edge.doctor.finding import Finding, Site, failed, ok, warning

SYNCS: Final = 100
SYNCS_S_MAX: Final = 3.0
"""Somebody waits for it; a slow disk gives enough numbers in this time too."""

WRITE_BYTES: Final = 4096
"""About a block of a quiet site; what a sync costs hardly depends on it."""

SLOW_MS: Final = 100.0
"""At p99. Devices wait so long for their answers; a flash card that is worn or shared does that."""

TOO_SLOW_MS: Final = 2_000.0
"""At p99. The gateway gives a batch 5 s before it asks again, and devices' own patience ends soon."""

ROOM_BYTES_MIN: Final = 100_000_000
"""Beside what the log may still take: databases, updates and the system's own log need some."""

VOLATILE: Final = frozenset({"tmpfs", "ramfs", "overlay"})
REMOTE: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs"})
UNSAFE: Final = frozenset({"vfat", "exfat", "msdos"})

_MOUNTS: Final = Path("/proc/self/mountinfo")


class Mount(msgspec.Struct, frozen=True):
    place: str
    kind: str
    read_only: bool


def check(site: Site) -> Iterator[Finding]:
    folder = existing(site.data_dir)
    mount = mount_of(folder, _MOUNTS.read_text())
    yield of_mount(mount)
    yield room(site, folder)
    if mount.read_only or not site.data_dir.is_dir():
        return
    if not os.access(site.data_dir, os.W_OK | os.X_OK):
        yield warning(
            "disk sync", f"not measured: {site.data_dir} cannot be written to", "run doctor as the gateway's user"
        )
        return
    try:
        yield of_syncs(sync_ms(site.data_dir))
    except OSError as error:
        yield failed(
            "disk sync", f"{site.data_dir}: {error.strerror}", "see to the disk, or set data_dir to another one"
        )


def existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder.resolve()


def mount_of(folder: Path, mounts: str) -> Mount:
    """The mount that the folder lies in, of proc(5)'s mountinfo."""
    found = Mount("/", "unknown", False)
    for line in mounts.splitlines():
        words, _, rest = line.partition(" - ")
        place, options = words.split(" ")[4:6]
        place = place.replace("\\040", " ")
        if folder.is_relative_to(place) and len(place) >= len(found.place):
            flags = {*options.split(","), *rest.split(" ")[2].split(",")}
            found = Mount(place, rest.split(" ")[0], "ro" in flags)
    return found


def of_mount(mount: Mount) -> Finding:
    seen = f"{mount.kind} at {mount.place}"
    if mount.read_only:
        remedy = "look into dmesg for errors of the disk, then: mount -o remount,rw " + mount.place
        return failed("file system", f"{seen} is read-only: nothing can be recorded", remedy)
    remedy = "set data_dir to a folder on a disk of this machine (ext4, xfs, btrfs, f2fs)"
    if mount.kind in VOLATILE:
        return warning(
            "file system", f"{seen} may be gone after a restart, and what devices were promised with it", remedy
        )
    if mount.kind in REMOTE:
        return warning("file system", f"{seen} is on another machine: recording stops whenever that is away", remedy)
    if mount.kind in UNSAFE:
        return warning("file system", f"{seen} has no journal and no owners of files: a power cut may cost it", remedy)
    return ok("file system", seen)


def room(site: Site, folder: Path) -> Finding:
    """Whether the log can grow to its cap."""
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    log = site.data_dir / "log"
    used = 0
    with contextlib.suppress(OSError), os.scandir(log) as entries:
        used = sum(entry.stat().st_size for entry in entries if entry.is_file(follow_symlinks=False))
    cap = site.config.log.max_bytes
    grows = max(0, cap - used)
    seen = f"{free / 1e9:.1f} GB free; the log has {used / 1e9:.1f} GB and may grow to {cap / 1e9:.1f} GB"
    if found.f_favail == 0 and found.f_files:
        return failed("disk room", f"{seen}; no file can be made: no inodes are left", "remove files from this disk")
    if free < ROOM_BYTES_MIN:
        return failed("disk room", seen, "make room on this disk, or set data_dir to another one")
    if free < grows + ROOM_BYTES_MIN:
        remedy = f"set log.max_bytes to at most {max(0, used + free - ROOM_BYTES_MIN):,}, or make room"
        return warning("disk room", f"{seen}: the disk is full before the log is", remedy)
    return ok("disk room", seen)


def sync_ms(folder: Path) -> list[float]:
    """How long each write with its sync took, sorted; in a file of its own, which is gone afterwards."""
    taken: list[float] = []
    with tempfile.NamedTemporaryFile(prefix=".doctor-", dir=folder) as file:
        number = file.fileno()
        os.posix_fallocate(number, 0, SYNCS * WRITE_BYTES)
        os.fsync(number)
        data = os.urandom(WRITE_BYTES)
        ends_s = time.perf_counter() + SYNCS_S_MAX
        for place in range(SYNCS):
            began_s = time.perf_counter()
            os.pwrite(number, data, place * WRITE_BYTES)
            os.fdatasync(number)
            now_s = time.perf_counter()
            taken.append(1000 * (now_s - began_s))
            if now_s > ends_s:
                break
    return sorted(taken)


def of_syncs(taken_ms: Sequence[float]) -> Finding:
    """`taken_ms`: sorted."""

    def percentile(part: float) -> float:
        return taken_ms[min(len(taken_ms) - 1, int(part * len(taken_ms)))]

    p99 = percentile(0.99)
    seen = f"p50 {percentile(0.5):.2f} ms, p90 {percentile(0.9):.2f} ms, p99 {p99:.2f} ms of {len(taken_ms)}"
    remedy = "see what else writes to this disk (iotop); a worn flash card needs to be replaced, an SSD is best"
    if p99 >= TOO_SLOW_MS:
        return failed("disk sync", f"{seen}: devices give up before they are answered", remedy)
    if p99 >= SLOW_MS:
        return warning("disk sync", f"{seen}: each device waits so long for its answer (good: below 10 ms)", remedy)
    return ok("disk sync", seen)
