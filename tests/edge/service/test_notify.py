"""What systemd is told, and when it is not."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.service.notify import BEATS, STATUS_S, Notify, Pulse


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5)
        yield sock


def heard(systemd: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in systemd.recv(4096).decode().split("\n"))


def environ(systemd: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": systemd.getsockname(), **more}


def test_nobody_asked_for_it() -> None:
    notify = Notify({})
    assert not notify.is_heard
    notify.tell(READY="1")


def test_lines_are_told_and_stay_lines(systemd: socket.socket) -> None:
    notify = Notify(environ(systemd))
    assert notify.is_heard
    notify.tell(READY="1", STATUS="two\nlines")
    assert heard(systemd) == {"READY": "1", "STATUS": "two lines"}


def test_an_abstract_socket_has_an_at_sign() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0tidegate-test-{os.getpid()}")
        sock.settimeout(5)
        Notify({"NOTIFY_SOCKET": f"@tidegate-test-{os.getpid()}"}).tell(STOPPING="1")
        assert heard(sock) == {"STOPPING": "1"}


def test_a_socket_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    Notify({"NOTIFY_SOCKET": str(tmp_path / "gone")}).tell(READY="1")


def test_how_often_it_says_that_it_lives(systemd: socket.socket) -> None:
    assert Notify(environ(systemd, WATCHDOG_USEC="60000000")).beat_s == 60 / BEATS
    assert Notify(environ(systemd, WATCHDOG_USEC="3000000", WATCHDOG_PID=str(os.getpid()))).beat_s == 3 / BEATS
    assert Notify(environ(systemd, WATCHDOG_USEC="3000000", WATCHDOG_PID="1")).beat_s == STATUS_S
    assert Notify(environ(systemd)).beat_s == STATUS_S


async def test_signs_of_life_come_only_while_it_lives(systemd: socket.socket) -> None:
    notify = Notify(environ(systemd, WATCHDOG_USEC="30000"))
    lives = True
    running = asyncio.create_task(notify.run(lambda: lives, lambda: "9 logged"))
    try:
        assert await asyncio.to_thread(heard, systemd) == {"WATCHDOG": "1", "STATUS": "9 logged"}
        lives = False
        async with asyncio.timeout(5):
            while "WATCHDOG" in (told := await asyncio.to_thread(heard, systemd)):
                pass
        assert told == {"STATUS": "the recorder does not answer; 9 logged"}
    finally:
        running.cancel()


class Recorder:
    taken = 0
    answered = 0


def test_a_recorder_lives_while_it_answers_or_has_nothing_to_do() -> None:
    recorder = Recorder()
    pulse = Pulse(recorder)
    assert pulse.is_alive()
    assert pulse.is_alive()
    recorder.taken = 5
    assert not pulse.is_alive(), "it was given something, and answered nothing since"
    recorder.answered = 3
    assert pulse.is_alive(), "it gets on"
    assert not pulse.is_alive(), "it does not any more"
    recorder.answered = 5
    assert pulse.is_alive()
    assert pulse.is_alive()
