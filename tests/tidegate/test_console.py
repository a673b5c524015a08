"""What commands print, and the exit code they end with."""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pytest
import typer

from tidegate import console
from tidegate.console import UserError


def app_of(action: Callable[[], None]) -> typer.Typer:
    app = typer.Typer()

    @app.callback()
    def main(version: Annotated[bool, console.version_option("tidegate-edge")] = False) -> None: ...

    @app.command()
    def act() -> None:
        action()

    return app


def ended(monkeypatch: pytest.MonkeyPatch, action: Callable[[], None], *argv: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tidegate-edge", *argv])
    with pytest.raises(SystemExit) as caught:
        console.run_app(app_of(action))
    assert isinstance(caught.value.code, int)
    return caught.value.code


def raiser(error: BaseException) -> Callable[[], None]:
    def action() -> None:
        raise error

    return action


def test_success_ends_with_0(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(monkeypatch, lambda: console.print_json("done"), "act") == 0
    assert capsys.readouterr() == ('"done"\n', "")


def test_a_user_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    error = UserError("port 1883 is taken by another process", "tidegate-edge run --mqtt-port 1884")
    assert ended(monkeypatch, raiser(error), "act") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: port 1883 is taken by another process\n  try: tidegate-edge run --mqtt-port 1884\n"


def test_a_user_error_comes_out_of_task_groups(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def task() -> None:
        raise UserError("no cloud there")

    async def main() -> None:
        async with asyncio.TaskGroup() as outer, asyncio.TaskGroup() as inner:
            inner.create_task(task())
            outer.create_task(asyncio.sleep(0))

    assert ended(monkeypatch, lambda: asyncio.run(main()), "act") == 1
    assert capsys.readouterr().err == "error: no cloud there\n"


def test_an_unexpected_error_is_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(console.DEBUG_VARIABLE, raising=False)
    assert ended(monkeypatch, raiser(KeyError("epoch")), "act") == 1
    assert capsys.readouterr().err == "error: unexpected KeyError: 'epoch'; set TIDEGATE_DEBUG=1 to see where\n"


def test_debug_shows_where(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(console.DEBUG_VARIABLE, "1")
    assert ended(monkeypatch, raiser(KeyError("epoch")), "act") == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(monkeypatch, raiser(KeyboardInterrupt()), "act") == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_usage_error_ends_with_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(monkeypatch, lambda: None, "act", "--no-such") == 2
    assert "No such option" in capsys.readouterr().err


def test_a_command_chooses_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ended(monkeypatch, raiser(typer.Exit(3)), "act") == 3


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(monkeypatch, lambda: None, "--version") == 0
    name, version = capsys.readouterr().out.split()
    assert name == "tidegate-edge"
    assert version[0].isdigit()


ROWS = [
    {"name": "quay-1", "logged": 12480, "up": True, "since": None},
    {"name": "pier-22", "logged": 20, "up": False, "since": 8080},
]


def test_rows_as_a_table_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    console.show(ROWS, columns={"name": "gateway", "logged": "logged", "up": "up", "since": "since"}, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "gateway  logged  up   since",
        "quay-1   12,480  yes",
        "pier-22      20  no    8080",
    ]


def test_rows_as_json_hold_everything(capsys: pytest.CaptureFixture[str]) -> None:
    console.show(ROWS, columns={"name": "gateway"}, as_json=True)
    assert json.loads(capsys.readouterr().out) == ROWS


def test_no_rows(capsys: pytest.CaptureFixture[str]) -> None:
    console.show([], columns={"name": "gateway", "up": "up"}, as_json=False)
    console.show([], columns={"name": "gateway"}, as_json=True)
    assert capsys.readouterr().out == "gateway  up\n[]\n"


def test_json_of_paths_and_structs(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json({"directory": Path("/srv")})
    assert json.loads(capsys.readouterr().out) == {"directory": "/srv"}


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_progress_in_a_pipe_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with console.progress("replaying", 30_000, clock=clock) as progress:
        for _ in range(25):
            progress.advance(1_000)
            clock.now_s += 1
        progress.reach(30_000)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "replaying 11,000 of 30,000",
        "replaying 21,000 of 30,000",
        "replaying 30,000 of 30,000",
    ]


def test_live_in_a_pipe_prints_now_and_then_and_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with console.live({"n": "n"}, clock=clock) as live:
        for n in range(12):
            live.show([{"n": n}], f"link up, {n}")
            clock.now_s += 1
    assert capsys.readouterr().out.splitlines() == [
        "n",
        "0",
        "link up, 0",
        " n",
        "10",
        "link up, 10",
        " n",
        "11",
        "link up, 11",
    ]


def test_live_line_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with console.live({}) as live:
        live.show([], "logged 10 = accepted 10")
    assert capsys.readouterr().out == "logged 10 = accepted 10\n"


TERMINAL_SCRIPT = """
from tidegate import console
console.show([{"name": "quay-1", "logged": 12480}], columns={"name": "gateway", "logged": "logged"}, as_json=False)
with console.progress("replaying", 2) as progress:
    progress.advance(2)
with console.live({"n": "count"}) as live:
    live.show([{"n": 7}], "link up")
"""


def test_on_a_terminal_it_is_drawn() -> None:
    """`script` (util-linux) gives the process a terminal of its own."""
    done = subprocess.run(
        ["script", "-qec", shlex.join([sys.executable, "-c", TERMINAL_SCRIPT]), "/dev/null"],
        capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    for part in ("gateway", "12,480", "replaying", "2/2", "count", "link up"):
        assert part in done.stdout
    assert "\x1b[" in done.stdout


def test_what_a_gateway_imports_to_run_is_small() -> None:
    script = (
        "import sys, tidegate.console, tidegate.config, tidegate.logs, tidegate.loop;"
        "print([name for name in ('pydantic', 'httpx', 'rich.live', 'rich.progress', 'typer') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"
