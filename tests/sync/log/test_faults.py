"""Full, failing, torn and rotten disks."""

from __future__ import annotations

import asyncio
import errno
import random
from pathlib import Path

import pytest

from protocols.block import HEAD_BYTES, open_block
from protocols.messages import GapKind
from sync.log.disk import Disk
from sync.log.log import Log, LogFailedError, LogFullError
from sync.log.segment import HEADER_BYTES
from sync.log.settings import STATE_BYTES
from sync.log.state import state_names
from tests.sync.log.making import (
    DIRECTORY,
    REFUSING,
    SEGMENT_BYTES,
    SMALL,
    accept,
    closes,
    entry,
    keys_of,
    opened,
    read_all,
)
from tests.sync.log.simulated_disk import SimulatedDisk


async def append_until_full(log: Log, noise: bytes) -> int:
    """How many entries went in."""
    for n in range(100):
        try:
            await log.append([entry(n, noise=noise)])
        except LogFullError:
            return n
    raise AssertionError("the log never was full")


async def room_again(log: Log) -> None:
    while log.accounting().used_bytes + SEGMENT_BYTES > SMALL.max_bytes:
        await asyncio.sleep(0.001)


async def pending(disk: Disk) -> list[tuple[int, int]]:
    """Keys of what a new opening finds not accepted."""
    async with opened(disk) as log:
        assert closes(log)
        return keys_of(await read_all(log.reader("check")))


class TestFull:
    async def test_a_full_log_refuses_and_takes_again_once_room_is_freed(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        async with opened(disk, settings=REFUSING) as log:
            count = await append_until_full(log, noise)
            assert count >= 12
            assert log.accounting().logged == count
            with pytest.raises(LogFullError, match="would pass the limit of"):
                await log.append([entry(1000, noise=noise)])
            accept(log, (await read_all(log.reader("sender")))[: count // 2])
            await room_again(log)
            await log.append([entry(1000, noise=noise)])
            assert closes(log)
        assert disk.largest_bytes <= SMALL.max_bytes

    async def test_an_append_that_does_not_fit_whole_leaves_nothing(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        async with opened(disk, settings=REFUSING) as log:
            for n in range(6):
                await log.append([entry(n, noise=noise)])
            before = log.accounting().logged
            with pytest.raises(LogFullError):
                await log.append([entry(n, run=2, noise=noise) for n in range(30)])
            await log.append([entry(100)])
            assert log.accounting().logged == before + 1
        assert [run for run, _ in await pending(disk)] == [1] * 7

    async def test_a_disk_that_others_have_filled_refuses_too_and_goes_on_trimming(self, noise: bytes) -> None:
        disk = SimulatedDisk(capacity_bytes=STATE_BYTES + 3 * SEGMENT_BYTES)
        async with opened(disk, settings=REFUSING) as log:
            count = await append_until_full(log, noise)
            accept(log, await read_all(log.reader("sender")))
            while log.accounting().segments > 1:
                await asyncio.sleep(0.001)
            await log.append([entry(1000, noise=noise)])
            assert log.accounting().logged == count + 1


class TestFailedWrites:
    async def test_what_failed_is_not_acknowledged_and_the_next_append_goes_elsewhere(self) -> None:
        disk = SimulatedDisk()
        async with opened(disk) as log:
            await log.append([entry(1)])
            before, fenced = log.epoch, disk.segments()[0]
            disk.fail_writes(errno.EIO)
            with pytest.raises(LogFailedError, match="simulated"):
                await log.append([entry(2)])
            assert log.accounting().logged == 1
            left = bytes(disk.files[fenced])
            await log.append([entry(2)])
            assert log.epoch != before
            assert disk.files[fenced] == left, "a file whose sync failed is never written again"
            assert keys_of(await read_all(log.reader("check"))) == [(1, 1), (1, 2)]

    @pytest.mark.parametrize("seed", range(12))
    async def test_what_a_failed_write_left_on_the_disk_is_never_read(self, seed: int, noise: bytes) -> None:
        """Its batch was recorded again: found there after a restart, it would be there twice."""
        disk = SimulatedDisk(seed)
        async with opened(disk) as log:
            await log.append([entry(1)])
            disk.fail_writes(errno.EIO)
            with pytest.raises(LogFailedError):
                await log.append([entry(2)])
            await log.append([entry(2)])
            # The segment whose header tells where the failed one ends is filled, accepted and trimmed before it.
            tells = disk.segments()[1]
            for n in range(3, 8):
                await log.append([entry(n, noise=noise)])
            assert log.accounting().segments == 3
            log.accept(log.epoch, 0, 4)
        assert tells not in disk.files
        assert await pending(disk) == [(1, 1), (1, 6), (1, 7)]

    @pytest.mark.parametrize("seed", range(24))
    async def test_nor_where_the_header_that_tells_is_rotten_and_the_state_is_lost(self, seed: int) -> None:
        """Some of these disks keep the whole block whose write failed: then its batch tells, as it stands behind it."""
        disk = SimulatedDisk(seed)
        async with opened(disk) as log:
            await log.append([entry(1)])
            disk.fail_writes(errno.EIO)
            with pytest.raises(LogFailedError):
                await log.append([entry(2)])
            await log.append([entry(2)])
            await log.append([entry(3)])
        tells = disk.segments()[1]
        disk.files[tells][HEADER_BYTES - 1] ^= 1
        for name in state_names():
            del disk.files[DIRECTORY / name]
        assert sorted(await pending(disk)) == [(1, 1), (1, 2), (1, 3)]

    @pytest.mark.parametrize("seed", range(8))
    async def test_a_segment_that_failed_at_once_is_void_though_its_removal_came_to_nothing(self, seed: int) -> None:
        disk = SimulatedDisk(seed)
        async with opened(disk) as log:
            disk.fail_writes(errno.EIO)
            with pytest.raises(LogFailedError):
                await log.append([entry(1)])
            await log.append([entry(1)])
        (failed,) = [path for path in disk.removed if path.suffix == ".seg"]
        disk.files[failed] = disk.removed[failed]
        assert await pending(disk) == [(1, 1)]
        assert failed not in disk.files

    @pytest.mark.parametrize("seed", range(8))
    async def test_a_disk_that_goes_on_failing_fills_up_with_nothing(self, seed: int) -> None:
        disk = SimulatedDisk(seed)
        async with opened(disk) as log:
            for n in range(30):
                disk.fail_writes(errno.EIO)
                with pytest.raises(LogFailedError):
                    await log.append([entry(n)])
            await log.append([entry(n) for n in range(30)])
            assert log.accounting().logged == 30
        assert await pending(disk) == [(1, n) for n in range(30)]
        assert disk.largest_bytes <= SMALL.max_bytes

    async def test_no_segment_can_be_made(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        async with opened(disk) as log:
            await log.append([entry(1)])
            disk.fail_creates(*[errno.EROFS] * 50)
            # Two segments' worth: one more than is prepared.
            with pytest.raises(LogFailedError, match="cannot prepare"):
                await log.append([entry(n, noise=random.Random(n).randbytes(20_000)) for n in range(2, 9)])
            assert log.accounting().logged == 1

    async def test_a_failing_state_file_leaves_what_was_remembered_before(self) -> None:
        disk = SimulatedDisk()
        async with opened(disk) as log:
            await log.append([entry(1, rows=10)])
            log.accept(log.epoch, 0, 4)
        async with opened(disk) as log:
            (epoch,) = log.accounting().epochs
            disk.fail_writes(errno.EIO, errno.EIO, to="state")
            log.accept(epoch.epoch, 4, 8)
        assert sum(path.name.startswith("state") for path in disk.files) == 1
        async with opened(disk) as log:
            assert log.accounting().accepted == 4


class TestTrimming:
    async def test_what_is_accepted_is_remembered_before_its_segment_goes(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        async with opened(disk) as log:
            for n in range(9):
                await log.append([entry(n, noise=noise)])
            log.accept(log.epoch, 8, 9)
        middle = disk.segments()[1]
        async with opened(disk) as log:
            (epoch,) = log.accounting().epochs
            log.accept(epoch.epoch, 3, 6)
            while middle in disk.files:
                await asyncio.sleep(0)
            crashed = {path: bytearray(content) for path, content in disk.files.items()}
        disk.files = crashed
        async with opened(disk) as log:
            total = log.accounting()
            assert (total.logged, total.accepted, total.pending, total.damaged) == (9, 4, 5, 0)


class TestDamage:
    before_close: dict[Path, bytearray]
    """The disk's files as a crash would have left them."""

    async def written(self, disk: SimulatedDisk, noise: bytes, count: int = 8, noise_bytes: int = 5000) -> None:
        async with opened(disk) as log:
            for n in range(count):
                await log.append([entry(n, rows=2, noise=noise[:noise_bytes])])
            self.before_close = {path: bytearray(content) for path, content in disk.files.items()}

    async def test_a_torn_tail_ends_the_epoch_and_nothing_else(self, noise: bytes) -> None:
        """Nobody can tell whether its last block was ever acknowledged: a gap of unknown length, counted apart."""
        disk = SimulatedDisk()
        await self.written(disk, noise)
        path = disk.segments()[0]
        disk.files = self.before_close
        content = disk.files[path]
        last = content.rindex(b"TGB1")
        content[last + 100 :] = bytes(10_000)
        for count in (7, 8):
            async with opened(disk) as log:
                total = log.accounting()
                assert (total.logged, total.pending, total.damaged, total.tails) == (2 * count, 2 * count, 0, 1)
                (gap,) = log.gaps(10)
                assert (gap.kind, gap.first_seq, gap.end_seq, gap.size_bytes) == (GapKind.TAIL, 14, 14, 100)
                await log.append([entry(7, rows=2)])
                assert len(keys_of(await read_all(log.reader("check")))) == 8

    async def test_what_is_missing_below_a_synced_end_that_is_known_is_damage(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        await self.written(disk, noise)
        content = disk.files[disk.segments()[0]]
        content[content.rindex(b"TGB1") + 100 :] = bytes(10_000)
        async with opened(disk) as log:
            total = log.accounting()
            assert (total.logged, total.pending, total.damaged, total.tails) == (16, 14, 2, 0)
            (gap,) = log.gaps(10)
            assert (gap.kind, gap.first_seq, gap.end_seq) == (GapKind.DAMAGED, 14, 16)
            assert closes(log)

    @pytest.mark.parametrize("place", [10, HEAD_BYTES + 100])
    async def test_a_rotten_block_is_counted_and_reading_goes_on_behind_it(self, place: int, noise: bytes) -> None:
        disk = SimulatedDisk()
        await self.written(disk, noise)
        path = disk.segments()[0]
        third = [at for at in range(len(disk.files[path])) if disk.files[path].startswith(b"TGB1", at)][2]
        disk.flip(path, third + place)
        for _ in range(2):
            async with opened(disk) as log:
                reader = log.reader("sender")
                assert keys_of(await read_all(reader)) == [(1, n) for n in (0, 1, 3, 4, 5, 6, 7)]
                total = log.accounting()
                assert (total.logged, total.pending, total.damaged) == (16, 14, 2)
                assert closes(log)

    async def test_rot_in_a_segment_that_was_sound_at_the_start_is_found_by_reading(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        await self.written(disk, noise, 40)
        async with opened(disk) as log:
            first, second = disk.segments()[:2]
            start = disk.files[first].index(b"TGB1")
            disk.flip(first, start + 60)
            last = disk.files[second].rindex(b"TGB1")
            disk.flip(second, last + 60)
            reader = log.reader("sender")
            blocks = await read_all(reader)
            lost = 40 - len(keys_of(blocks))
            assert lost == 2
            assert (log.accounting().damaged, reader.skipped) == (4, 4)
            accept(log, blocks)
            assert (log.accounting().pending, log.accounting().accepted) == (0, 76)
            assert closes(log)
        async with opened(disk) as log:
            assert log.accounting().segments <= 1, "a segment with damage is trimmed like any other"
            assert (log.accounting().logged, log.accounting().damaged) == (80, 4)

    async def test_a_rotten_header_costs_no_record(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        await self.written(disk, noise, 40)
        for path in disk.segments():
            disk.flip(path, 30)
        async with opened(disk) as log:
            assert keys_of(await read_all(log.reader("sender"))) == [(1, n) for n in range(40)]
            assert log.accounting().damaged == 0
            await log.append([entry(n, rows=2) for n in range(40)])
            assert log.accounting().logged == 80, "the keys are known from the blocks"

    async def test_damage_is_not_taken_for_what_was_trimmed_before_the_state_was_lost(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        await self.written(disk, noise, 40)
        second = disk.segments()[1]
        disk.flip(second, 30)
        disk.flip(second, disk.files[second].index(b"TGB1") + 60)
        for path in [path for path in disk.files if path.name.startswith("state")]:
            del disk.files[path]
        async with opened(disk) as log:
            assert (log.accounting().accepted, log.accounting().damaged) == (0, 2)

    async def test_unreadable_sectors_cost_only_their_block(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        await self.written(disk, noise, 4, 14_000)
        path = disk.segments()[0]
        third = [at for at in range(len(disk.files[path])) if disk.files[path].startswith(b"TGB1", at)][2]
        disk.bad_sectors.add((path, (third + 8000) // 512))
        async with opened(disk) as log:
            assert [key for _, key in keys_of(await read_all(log.reader("sender")))] == [0, 1, 3]
            assert log.accounting().damaged == 2

    async def test_a_segment_that_somebody_removed_is_damage_not_acceptance(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        async with opened(disk) as log:
            for n in range(40):
                await log.append([entry(n, rows=2, noise=noise[:5000])])
            log.accept(log.epoch, 0, 2)
        del disk.files[disk.segments()[1]]
        async with opened(disk) as log:
            blocks = await read_all(log.reader("sender"))
            total = log.accounting()
            assert total.damaged == 78 - sum(open_block(block)[0].records for block in blocks) > 0
            assert closes(log)

    async def test_a_segment_removed_while_the_log_is_open_is_damage_too(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        await self.written(disk, noise, 40)
        async with opened(disk) as log:
            del disk.files[disk.segments()[1]]
            reader = log.reader("sender")
            blocks = await read_all(reader)
            assert log.accounting().damaged == reader.skipped == 80 - 2 * len(keys_of(blocks)) > 0
            assert closes(log)

    async def test_a_segment_of_a_newer_version_is_left_alone(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        await self.written(disk, noise)
        newer = DIRECTORY / "00000099.seg"
        disk.files[newer] = bytearray(b"TGS9" + bytes(5000))
        async with opened(disk) as log:
            assert len(keys_of(await read_all(log.reader("sender")))) == 8
            await log.append([entry(8)])
        assert disk.files[newer].startswith(b"TGS9")
        assert max(disk.segments()) > newer
