from __future__ import annotations

import os
from pathlib import Path

from cloud.engines.logfile import rotate, tail


def test_a_log_is_bounded_while_the_engine_goes_on_writing_to_it(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    engine = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(engine, b"old\n" * 100)
    rotate(log, bytes_max=40)
    os.write(engine, b"new\n")
    os.close(engine)
    assert log.read_bytes() == b"new\n"
    assert (tmp_path / "engine.log.1").read_bytes() == b"old\n" * 10


def test_a_small_log_and_a_missing_one_are_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    rotate(log)
    log.write_bytes(b"few")
    rotate(log, bytes_max=3)
    assert [entry.name for entry in tmp_path.iterdir()] == ["engine.log"]
    assert log.read_bytes() == b"few"


def test_the_tail_is_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    assert tail(log) == ""
    log.write_bytes(b"x" * 10_000 + b"\n a\nb \nc\n\xff\n")
    assert tail(log, 2) == "c\n�"
    assert tail(log, 1) == "�"
