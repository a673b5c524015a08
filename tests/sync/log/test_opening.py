"""What is found at an opening: what may only be in the system's memory, and files that the disk does not give."""

from __future__ import annotations

import pytest

from protocols.block import MAGIC as BLOCK
from sync.log.log import Log, LogFailedError
from tests.sync.log.making import DIRECTORY, closes, entry, keys_of, open_log, opened, read_all
from tests.sync.log.simulated_disk import SimulatedDisk


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk()


async def killed_in_write(disk: SimulatedDisk) -> None:
    """Batch 1 is recorded, and the process is killed while batch 2 is written."""
    log = await open_log(disk)
    await log.append([entry(1)])
    disk.kill_in_write()
    with pytest.raises(LogFailedError):
        await log.append([entry(2)])
    await abandon(log)
    disk.restart()


async def abandon(log: Log) -> None:
    """As a kill does: nothing more reaches the disk, which is off."""
    await log.close()


async def test_what_was_in_memory_only_is_durable_before_anybody_is_told_so(disk: SimulatedDisk) -> None:
    await killed_in_write(disk)
    log = await open_log(disk)
    await log.append([entry(2)])
    assert log.accounting().passed_over == 1, "it was found, so its publisher is told that it is kept"
    disk.fail_power()
    await abandon(log)
    disk.restart()
    async with opened(disk) as again:
        assert keys_of(await read_all(again.reader("link"))) == [(1, 1), (1, 2)]


async def test_where_it_cannot_be_made_durable_a_batch_is_recorded_again(disk: SimulatedDisk) -> None:
    await killed_in_write(disk)
    disk.fail_writes(5)
    log = await open_log(disk)
    await log.append([entry(2)])
    assert log.accounting().passed_over == 0
    disk.fail_power()
    await abandon(log)
    disk.restart()
    async with opened(disk) as again:
        assert keys_of(await read_all(again.reader("link"))).count((1, 2)) == 1


async def test_a_disk_that_comes_up_slowly_is_waited_for(disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(disk) as log:
        await log.append([entry(1)])
    (path,) = [path for path in disk.segments() if path.parent == DIRECTORY][:1]
    disk.deaf.add(path)
    monkeypatch.setattr("sync.log.log.OPEN_WAITS_S", (0.0, 0.0, 0.0))
    sizes, looks = disk.sizes, 0

    def comes_up(directory: object) -> dict[str, int]:
        nonlocal looks
        looks += 1
        if looks == 3:
            disk.deaf.clear()
        return sizes(DIRECTORY)

    monkeypatch.setattr(disk, "sizes", comes_up)
    async with opened(disk) as log:
        assert keys_of(await read_all(log.reader("link"))) == [(1, 1)]


async def test_a_file_that_the_disk_does_not_give_is_there_when_it_does(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log goes on without it, and no later header makes it void."""
    monkeypatch.setattr("sync.log.log.OPEN_WAITS_S", ())
    for counter in (1, 2):
        async with opened(disk) as log:
            await log.append([entry(counter)])
    newest = [path for path in disk.segments() if BLOCK in disk.files[path]][-1]
    disk.deaf.add(newest)
    async with opened(disk) as log:
        await log.append([entry(3)])
        assert keys_of(await read_all(log.reader("link"))) == [(1, 1), (1, 3)]
        assert closes(log)
    disk.deaf.clear()
    async with opened(disk) as log:
        assert sorted(keys_of(await read_all(log.reader("link")))) == [(1, 1), (1, 2), (1, 3)]
        assert closes(log)


async def test_a_disk_that_gives_nothing_is_no_empty_log(disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync.log.log.OPEN_WAITS_S", ())
    async with opened(disk) as log:
        await log.append([entry(1)])
    disk.unreadable = True
    with pytest.raises(OSError, match="unreadable"):
        await open_log(disk)
