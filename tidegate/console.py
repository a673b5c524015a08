"""What the three commands show: tables or JSON, progress, and errors that say what to do.

Results go to standard output, everything about the way there to standard error. rich is imported where something
is drawn on a terminal only: a gateway that runs has no use for it, and a budget for its memory.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, TextIO

import msgspec

if TYPE_CHECKING:
    import typer

DISTRIBUTION: Final = "tidegate"
DEBUG_VARIABLE: Final = "TIDEGATE_DEBUG"
EXIT_ERROR: Final = 1
EXIT_INTERRUPTED: Final = 130
"""128 + SIGINT, as shells count."""
PIPED_EVERY_S: Final = 10.0
"""A pipe is read later or by a program: one line in this time says enough."""
DRAWS_PER_S: Final = 4.0


class UserError(Exception):
    """What the person at the keyboard can mend; printed as `error: …` and `try: …`, never with a traceback."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


def run_app(app: typer.Typer) -> NoReturn:
    """Runs a command line to its exit code: 0 or what the command says, 1 after an error, 2 after a usage error, 130
    after Ctrl-C."""
    from tidegate import logs

    debug = bool(os.environ.get(DEBUG_VARIABLE))
    logs.configure(level="debug" if debug else "info")
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the last place that can turn a defect into a sentence
        _print_error(error, debug)
        sys.exit(EXIT_ERROR)
    sys.exit(0)


def version_option(command: str) -> Any:
    """The `--version` option of a command, for its callback:

    def main(version: Annotated[bool, version_option("tidegate-edge")] = False) -> None: ...
    """
    import typer

    def print_version(wanted: bool) -> None:
        if wanted:
            print(f"{command} {importlib.metadata.version(DISTRIBUTION)}")
            raise typer.Exit

    return typer.Option("--version", help="Show the version and exit.", callback=print_version, is_eager=True)


def show(rows: Iterable[Mapping[str, Any]], *, columns: Mapping[str, str], as_json: bool) -> None:
    """The rows as a table with `columns` (key to heading, in order), or all of their keys as JSON."""
    rows = list(rows)
    if as_json:
        print_json(rows)
    elif sys.stdout.isatty():
        from rich.console import Console

        Console().print(_rich_table(rows, columns))
    else:
        for line in _plain_lines(rows, columns):
            print(line)


def print_json(value: Any) -> None:
    """The value (builtins, Structs, dates, paths) on standard output, for people and programs."""
    print(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2).decode())


class Progress(Protocol):
    """How far something is."""

    def advance(self, amount: int = 1) -> None: ...

    def reach(self, done: int, total: int | None = None) -> None:
        """`done` of `total`, where the whole is known or has become another."""
        ...


@contextlib.contextmanager
def progress(
    title: str, total: int | None = None, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[Progress]:
    """A bar on a terminal, a line every PIPED_EVERY_S otherwise; on standard error."""
    if not sys.stderr.isatty():
        lines = _LineProgress(title, total, clock, sys.stderr)
        yield lines
        lines.finish()
        return
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True)) as drawn:
        yield _BarProgress(drawn, drawn.add_task(title, total=total))


class _LineProgress:
    def __init__(self, title: str, total: int | None, clock: Callable[[], float], stream: TextIO) -> None:
        self._title = title
        self._done = 0
        self._total = total
        self._clock = clock
        self._stream = stream
        self._next = clock() + PIPED_EVERY_S

    def advance(self, amount: int = 1) -> None:
        self.reach(self._done + amount)

    def reach(self, done: int, total: int | None = None) -> None:
        self._done = done
        self._total = self._total if total is None else total
        if self._clock() >= self._next:
            self._next = self._clock() + PIPED_EVERY_S
            self._print()

    def finish(self) -> None:
        self._print()

    def _print(self) -> None:
        of = "" if self._total is None else f" of {number_text(self._total)}"
        print(f"{self._title} {number_text(self._done)}{of}", file=self._stream, flush=True)


class _BarProgress:
    def __init__(self, drawn: Any, task: Any) -> None:
        self._drawn = drawn
        self._task = task

    def advance(self, amount: int = 1) -> None:
        self._drawn.advance(self._task, amount)

    def reach(self, done: int, total: int | None = None) -> None:
        self._drawn.update(self._task, completed=done, **({} if total is None else {"total": total}))


class Live(Protocol):
    """Something on the screen that is drawn again and again."""

    def show(self, rows: Sequence[Mapping[str, Any]], footer: str = "") -> None: ...


@contextlib.contextmanager
def live(columns: Mapping[str, str], *, clock: Callable[[], float] = time.monotonic) -> Iterator[Live]:
    """A table with a line below it (columns {}: the line alone) that is drawn in place on a terminal, and printed every
    PIPED_EVERY_S otherwise; the last state stays. On standard output."""
    if not sys.stdout.isatty():
        printed = _PrintedLive(columns, clock)
        yield printed
        printed.finish()
        return
    from rich.live import Live as RichLive

    with RichLive(refresh_per_second=DRAWS_PER_S) as drawn:
        yield _DrawnLive(columns, drawn)


class _PrintedLive:
    def __init__(self, columns: Mapping[str, str], clock: Callable[[], float]) -> None:
        self._columns = columns
        self._clock = clock
        self._next = clock()
        self._waiting: list[str] = []

    def show(self, rows: Sequence[Mapping[str, Any]], footer: str = "") -> None:
        self._waiting = [*_plain_lines(rows, self._columns), *([footer] if footer else [])]
        if self._clock() >= self._next:
            self._next = self._clock() + PIPED_EVERY_S
            self.finish()

    def finish(self) -> None:
        for line in self._waiting:
            print(line, flush=True)
        self._waiting = []


class _DrawnLive:
    def __init__(self, columns: Mapping[str, str], drawn: Any) -> None:
        self._columns = columns
        self._drawn = drawn

    def show(self, rows: Sequence[Mapping[str, Any]], footer: str = "") -> None:
        from rich.console import Group
        from rich.text import Text

        table = [_rich_table(rows, self._columns)] if self._columns else []
        self._drawn.update(Group(*table, *([Text(footer)] if footer else [])))


def number_text(value: float) -> str:
    """A number for people: 12,480, but 8080, as most numbers of four digits are ports or years; 71.5 as it is."""
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number_text(value)
    return value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=str).decode()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numeric(rows: Sequence[Mapping[str, Any]], key: str) -> bool:
    return any(_is_number(row.get(key)) for row in rows)


def _plain_lines(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> list[str]:
    """Columns of text, numbers to the right."""
    if not columns:
        return []
    cells = [list(columns.values()), *([_cell(row.get(key)) for key in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [_numeric(rows, key) for key in columns]
    return [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in cells
    ]


def _rich_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for key, heading in columns.items():
        table.add_column(heading, justify="right" if _numeric(rows, key) else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(row.get(key))) for key in columns))
    return table


def _print_error(error: Exception, debug: bool) -> None:
    known = list(_user_errors(error))
    for one in known:
        print(f"error: {one.message}", file=sys.stderr)
        if one.remedy:
            print(f"  try: {one.remedy}", file=sys.stderr)
    if debug:
        import traceback

        traceback.print_exception(error)
    elif not known:
        what = f"{type(error).__name__}: {error}".rstrip(": ")
        print(f"error: unexpected {what}; set {DEBUG_VARIABLE}=1 to see where", file=sys.stderr)


def _user_errors(error: BaseException) -> Iterator[UserError]:
    """Task groups wrap what their tasks raise."""
    if isinstance(error, UserError):
        yield error
    elif isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _user_errors(inner)
