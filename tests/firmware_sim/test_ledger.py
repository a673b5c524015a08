"""The ledger survives kills, keeps boot counters, and stays within its bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from firmware_sim import ledger
from firmware_sim.ledger import LedgerDevice, LedgerWriter, is_being_written, read_ledger
from tidegate.console import UserError

NOW_MS = 1_790_000_000_000


def device(name: str, *, boot: int = 40) -> LedgerDevice:
    return LedgerDevice(name, "demo", "serial", True, boot)


def writer(directory: Path, now_ms: int = NOW_MS) -> LedgerWriter:
    return LedgerWriter(directory, wall_ms=lambda: now_ms)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    with writer(tmp_path) as book:
        (number,) = book.enroll([device("pump-01")])
        book.count_boots([number])
        boot = book.boot(number)
        for seq in (1, 2, 3):
            book.sent(number, boot, seq)
        book.sent(number, boot, 2)
        book.acknowledged(number, boot, 1)
        book.dropped(number, boot, 3)
    tallies = read_ledger(tmp_path)
    assert [known.name for known in tallies.devices] == ["pump-01"]
    assert (tallies.first_ms, tallies.last_ms) == (NOW_MS, NOW_MS)
    tally = tallies.of_device(0)[41]
    assert list(tally.sends) == [0, 1, 2, 1]
    assert list(tally.acknowledged) == [0, 1, 0, 0]
    assert list(tally.dropped) == [0, 0, 0, 1]


def test_a_boot_counter_goes_on_over_restarts_and_a_new_device_gets_a_new_number(tmp_path: Path) -> None:
    with writer(tmp_path) as book:
        book.count_boots(book.enroll([device("a"), device("b")]))
    with writer(tmp_path) as book:
        numbers = book.enroll([device("b", boot=7), device("c", boot=90)])
        assert numbers == [1, 2]
        book.count_boots(numbers)
        assert (book.boot(1), book.boot(2)) == (42, 91)


def test_a_counted_boot_is_on_disk_before_it_is_used(tmp_path: Path) -> None:
    book = writer(tmp_path)
    numbers = book.enroll([device("a")])
    book.count_boots(numbers)
    assert ledger.read_devices(tmp_path)[0].boot == book.boot(0) == 41
    book.close()


def test_what_was_flushed_is_there_although_the_writer_never_closed(tmp_path: Path) -> None:
    book = writer(tmp_path)
    book.count_boots(book.enroll([device("a")]))
    book.sent(0, 41, 1)
    book.flush()
    book.sent(0, 41, 2)
    assert list(read_ledger(tmp_path).of_device(0)[41].sends) == [0, 1]
    book.close()


def test_a_torn_last_entry_is_passed_over_and_a_new_fleet_starts_a_new_file(tmp_path: Path) -> None:
    with writer(tmp_path) as book:
        book.count_boots(book.enroll([device("a")]))
        book.sent(0, 41, 1)
    with (tmp_path / "000001.ledger").open("ab") as file:
        file.write(b"\x01\x00\x00\x00\x00\x00")
    with writer(tmp_path) as book:
        book.acknowledged(0, 41, 1)
    tally = read_ledger(tmp_path).of_device(0)[41]
    assert (list(tally.sends), list(tally.acknowledged)) == ([0, 1], [0, 1])


def test_a_damaged_entry_cannot_fill_the_memory(tmp_path: Path) -> None:
    with writer(tmp_path) as book:
        book.count_boots(book.enroll([device("a")]))
        book.sent(0, 41, 1)
        book.sent(0, 41, 2**32 - 1)
        book.sent(99, 41, 1)
    assert len(read_ledger(tmp_path).of_device(0)[41]) == 2


def test_two_fleets_cannot_write_one_ledger(tmp_path: Path) -> None:
    with writer(tmp_path):
        assert is_being_written(tmp_path)
        with pytest.raises(UserError, match="another fleet"):
            writer(tmp_path)
    assert not is_being_written(tmp_path)
    writer(tmp_path).close()


def test_old_files_go_when_there_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "FILE_BYTES_MAX", 64)
    monkeypatch.setattr(ledger, "FILES_MAX", 3)
    with writer(tmp_path) as book:
        book.count_boots(book.enroll([device("a")]))
        for seq in range(1, 41):
            book.sent(0, 41, seq)
            book.flush()
    files = sorted(path.name for path in tmp_path.glob("*.ledger"))
    assert len(files) == 3
    assert list(read_ledger(tmp_path).of_device(0)[41].sends[-4:]) == [1, 1, 1, 1]


def test_without_a_ledger_it_is_said_where_one_comes_from(tmp_path: Path) -> None:
    assert not is_being_written(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no ledger") as caught:
        read_ledger(tmp_path / "nowhere")
    assert "tidegate-sim fleet" in caught.value.remedy
