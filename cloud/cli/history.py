"""`tidegate-cloud history`: what a device's attributes were."""

from __future__ import annotations

import asyncio
import datetime
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from cloud.cli.options import AsJson, ConfigFile, DataDir, load_config
from cloud.cli.times import span_ms, time_ms
from tidegate import loop
from tidegate.console import UserError, show

if TYPE_CHECKING:
    from cloud.model.series import PointsQuestion, Question

ROWS_MAX: Final = 1000
"""Rows that are shown, if nothing else is said."""


def history(
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="Its id, or network:key:alias.")],
    path: Annotated[list[str], typer.Option("--path", "-p", help="An attribute, or a path in one: meta.serial.")],
    bucket: Annotated[
        str | None,
        typer.Option(
            help="15m, 1h, …, day, week, month, quarter, year, or all; without one, the messages' own values."
        ),
    ] = None,
    function: Annotated[
        list[str] | None,
        typer.Option(
            "--function", "-f", help="avg, min, max, sum, count, first, last, delta, rate, twa, states, p95, …"
        ),
    ] = None,
    last: Annotated[str | None, typer.Option(help="A span up to now: 10m, 2h, 7d. Default: 1d.")] = None,
    since: Annotated[str | None, typer.Option(help="Event time, inclusive: RFC 3339 or Unix milliseconds.")] = None,
    until: Annotated[str | None, typer.Option(help="Event time, exclusive.")] = None,
    zone: Annotated[str, typer.Option(help="Whose days they are, and whose times are shown: an IANA name.")] = "UTC",
    filter: Annotated[list[str] | None, typer.Option(help="Only messages with mode=auto, temperature>=20.")] = None,
    fill: Annotated[
        str, typer.Option(help="Buckets without values: none, null, previous, linear, or a number.")
    ] = "none",
    limit: Annotated[int, typer.Option(min=1, help="Most rows to show.")] = ROWS_MAX,
    newest_first: Annotated[bool, typer.Option("--newest-first", help="The latest first.")] = False,
    project: Annotated[str | None, typer.Option(help="Needed where there are several.")] = None,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, with times in Unix milliseconds.")] = False,
) -> None:
    """Show what a device's attributes were: in its messages, or in buckets."""
    now_ms = time.time_ns() // 1_000_000
    if last is not None and since is not None:
        raise UserError("--last goes not with --since", "give one of both")
    from_ms = now_ms - span_ms(last or "1d") if since is None else time_ms(since)
    to_ms = None if until is None else time_ms(until)
    config = load_config(config_file, data_dir)
    from cloud.app import read_history
    from cloud.model.buckets import AskedError, parse_zone
    from cloud.model.series import PointsQuestion, ask, parse_filters, parse_paths

    question: Question | PointsQuestion
    try:
        at = parse_zone(zone)
        if bucket is None:
            if function:
                raise UserError("functions need buckets", "add --bucket all, or --bucket 1h")
            end_ms = sys.maxsize if to_ms is None else to_ms
            question = PointsQuestion(parse_paths(path), from_ms, end_ms, parse_filters(filter or ()))
        else:
            question = ask(path, function or (), bucket, zone, from_ms, to_ms, now_ms, filters=filter or (), fill=fill)
    except AskedError as error:
        raise UserError(str(error), error.remedy or "tidegate-cloud history --help") from None
    rows: list[dict[str, Any]] = []

    def take(found: list[dict[str, Any]]) -> bool:
        rows.extend(found)
        return len(rows) <= limit

    async def main(stop: asyncio.Event) -> None:
        await read_history(config, project, device, question, path, take, descending=newest_first)

    loop.run(main)
    if len(rows) > limit:
        print(f"these are the first {limit} rows; more with --limit", file=sys.stderr)
        del rows[limit:]
    _print(rows, path, question, at, as_json=as_json, as_csv=as_csv)


def _print(
    rows: list[dict[str, Any]],
    paths: list[str],
    question: Question | PointsQuestion,
    zone: datetime.tzinfo,
    *,
    as_json: bool,
    as_csv: bool,
) -> None:
    from cloud.model.series import Question
    from cloud.table import csv_lines

    columns = (
        ["path", "start_time", "end_time", "gap", "filled", *question.functions]
        if isinstance(question, Question)
        else ["event_time", "id", *paths]
    )
    if as_csv:
        lines = csv_lines([columns, *([row.get(name) for name in columns] for row in rows)])
        sys.stdout.write(lines.decode())
        return
    if not as_json:
        for row in rows:
            for name in ("event_time", "start_time", "end_time"):
                if name in row:
                    row[name] = datetime.datetime.fromtimestamp(row[name] / 1000, zone).isoformat(timespec="seconds")
    readable = [
        {name: msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value for name, value in row.items()}
        for row in rows
    ]
    show(readable, columns={name: name.removesuffix("_time") for name in columns}, as_json=as_json)
