"""The machine's own disk, and the log's export from it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from pathlib import Path

import pytest

from protocols.messages import Priority
from sync.log.disk import RealDisk
from sync.log.export import export
from sync.log.log import LogBusyError
from tests.sync.log.making import SMALL, START_MS, entry, keys_of, open_log, opened, read_all


class TestRealDisk:
    def test_a_file_is_made_with_its_room_and_written_in_parts(self, tmp_path: Path) -> None:
        disk, path = RealDisk(), tmp_path / "a.seg"
        disk.create(path, 10_000)
        assert path.stat().st_blocks * 512 >= 10_000
        file = disk.open(path)
        file.write((b"one", b"two"), 5)
        file.close()
        assert disk.read(path, 4, 8) == b"\0onetwo\0"
        assert disk.read(path, 9_998, 100) == b"\0\0"
        assert disk.read(path, 20_000, 100) == b""
        with pytest.raises(FileExistsError):
            disk.create(path, 10)
        disk.truncate(path, 8)
        assert disk.sizes(tmp_path) == {"a.seg": 8}
        disk.remove([path, tmp_path / "never.seg"])
        assert disk.sizes(tmp_path) == {}
        disk.remove([])

    def test_a_write_that_the_kernel_cuts_short_is_gone_on_with(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        disk, path = RealDisk(), tmp_path / "a.seg"
        disk.create(path, 100)
        file = disk.open(path)
        monkeypatch.setattr(os, "pwritev", lambda fd, parts, offset: os.pwrite(fd, parts[0][:2], offset))
        file.write((b"one", b"two", b"three"), 10)
        file.close()
        assert disk.read(path, 9, 13) == b"\0onetwothree\0"

    def test_what_finds_no_room_leaves_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match=r"space|large"):
            RealDisk().create(tmp_path / "a.seg", 1 << 60)
        assert list(tmp_path.iterdir()) == []

    def test_a_lock_makes_its_directory_and_excludes(self, tmp_path: Path) -> None:
        disk, path = RealDisk(), tmp_path / "deep" / "log" / "lock"
        lock = disk.lock(path)
        with pytest.raises(BlockingIOError):
            disk.lock(path)
        lock.close()
        disk.lock(path).close()


async def test_a_log_on_it_lives_through_restarts(tmp_path: Path, noise: bytes) -> None:
    disk = RealDisk()
    for start in range(0, 9, 3):
        async with opened(disk, tmp_path) as log:
            for n in range(start, start + 3):
                await log.append([entry(n, noise=noise)])
            assert keys_of(await read_all(log.reader("sender"))) == [(1, n) for n in range(start + 3)]
            with pytest.raises(LogBusyError):
                await open_log(disk, tmp_path)
            assert log.accounting().used_bytes <= SMALL.max_bytes
    async with opened(disk, tmp_path) as log:
        for epoch in log.accounting().epochs:
            log.accept(epoch.epoch, 0, 3)
    async with opened(disk, tmp_path) as log:
        assert (log.accounting().logged, log.accounting().pending, log.accounting().segments) == (9, 0, 1)


class TestExport:
    async def test_every_record_of_a_running_log(self, tmp_path: Path, noise: bytes) -> None:
        steps: list[tuple[int, int]] = []
        async with opened(RealDisk(), tmp_path / "log") as log:
            for n in range(6):
                await log.append([entry(n, rows=2, noise=noise)])
            log.accept(log.epoch, 0, 3)
        async with opened(RealDisk(), tmp_path / "log") as log:
            await log.append([entry(6, at_ms=START_MS + 5)])
            done = await asyncio.to_thread(
                export, tmp_path / "log", tmp_path / "out.db", lambda *step: steps.append(step)
            )
            await log.append([entry(7)])
            current = log.epoch
        assert done.records == 13
        assert steps[-1][0] == steps[-1][1]
        with sqlite3.connect(tmp_path / "out.db") as database:
            rows = database.execute("SELECT * FROM records ORDER BY rowid").fetchall()
        database.close()
        assert [row[1] for row in rows] == [*range(12), 0]
        assert [row[-1] for row in rows] == ["yes"] * 3 + ["no"] * 10
        assert rows[-1] == (
            f"{current:016x}",
            0,
            START_MS + 5,
            "demo",
            "serial",
            "pump-1",
            "up",
            "mqtt",
            Priority.TELEMETRY.name.lower(),
            b"1/6/0 ",
            "no",
        )

    def test_it_overwrites_nothing_and_makes_nothing_of_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "there.db").write_text("mine")
        with pytest.raises(FileExistsError, match=r"there\.db"):
            export(tmp_path, tmp_path / "there.db", lambda *_: None)
        assert (tmp_path / "there.db").read_text() == "mine"
        with pytest.raises(FileNotFoundError):
            export(tmp_path / "missing", tmp_path / "out.db", lambda *_: None)
        assert not (tmp_path / "out.db").exists()
