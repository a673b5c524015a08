"""`tidegate-cloud import`: a file of past telemetry into the pipeline."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from cloud.cli.options import AsJson, ConfigFile, DataDir, load_config
from tidegate import loop
from tidegate.console import UserError, number_text, print_json, progress

if TYPE_CHECKING:
    from cloud.model.job import Job

STILL_S: Final = 10.0
"""A job that has not moved for so long waits for the service that does it."""
PROBLEMS_SHOWN: Final = 5


def import_file(
    file: Annotated[
        Path, typer.Argument(help="CSV with a line of names, or NDJSON; UTF-8.", exists=True, dir_okay=False)
    ],
    network: Annotated[str, typer.Option(help="Of all lines.")] = "",
    network_column: Annotated[str, typer.Option(help="Or where each line says it.")] = "",
    alias_key: Annotated[str, typer.Option(help="The network's, if it is left out.")] = "",
    alias_key_column: Annotated[str, typer.Option(help="Or where each line says it.")] = "",
    alias: Annotated[str, typer.Option(help="Of all lines: the file is of one device.")] = "",
    alias_column: Annotated[str, typer.Option(help="Or where each line says it.")] = "",
    time_column: Annotated[str, typer.Option(help="Where each line says its time.")] = "time",
    time_format: Annotated[
        str, typer.Option(help="s, ms, us, ns, min since 1970, or as strptime writes it; else as it looks.")
    ] = "",
    time_zone: Annotated[str, typer.Option(help="Of times that name none, such as Europe/Berlin.")] = "UTC",
    attribute: Annotated[
        list[str] | None, typer.Option(metavar="NAME=COLUMN", help="To keep, again and again; else all that are left.")
    ] = None,
    type: Annotated[  # the option's name
        list[str] | None, typer.Option(metavar="COLUMN=TYPE", help="number, text or boolean; else as it looks.")
    ] = None,
    format: Annotated[  # the option's name
        str | None, typer.Option(help="csv or ndjson; else as the first line looks.")
    ] = None,
    delimiter: Annotated[str | None, typer.Option(help="Of CSV; else as the first line looks.")] = None,
    decimal: Annotated[str, typer.Option(help="The decimal point, or a comma.")] = ".",
    key: Annotated[
        str, typer.Option(help="What is the same: line, or payload: by the network's message key.")
    ] = "line",
    dry_run: Annotated[bool, typer.Option(help="Only look at the first lines.")] = False,
    project: Annotated[str | None, typer.Option(help="Needed where there are several.")] = None,
    wait: Annotated[bool, typer.Option(help="Until it is read, with its progress.")] = True,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Read a file of past telemetry into the history of its devices; a job does it, and no line twice."""
    config = load_config(config_file, data_dir)
    from cloud.app import bring_file
    from cloud.imports import first_problems
    from cloud.model.importing import LINE_BYTES_MAX, MappingError, guessed
    from sync.link.server import unix_ms

    with file.open("rb") as opened:
        guess = guessed(opened.readline(LINE_BYTES_MAX + 1))
        opened.seek(0)
        given = {
            "format": format or guess[0], "delimiter": delimiter or guess[1], "decimal": decimal,
            "network_id": network, "network_column": network_column, "alias_key": alias_key,
            "alias_key_column": alias_key_column, "alias": alias, "alias_column": alias_column,
            "time_column": time_column, "time_format": time_format, "time_zone": time_zone,
            "attributes": _pairs("--attribute", attribute), "types": _pairs("--type", type), "key": key,
        }  # fmt: skip
        mapping = _mapping(given)
        try:
            problems = first_problems(opened, mapping, unix_ms())
        except MappingError as error:
            remedy = f"the columns are {', '.join(guess[2])}; see tidegate-cloud import --help"
            raise UserError(f"{file}: {error.field}: {error.detail}", remedy) from None
        for line, detail in problems[:PROBLEMS_SHOWN]:
            print(f"line {line}: {detail}", file=sys.stderr)
        if dry_run:
            print(f"of the first lines {len(problems)} cannot be read" if problems else "the first lines can be read")
            raise typer.Exit(1 if problems else 0)
        found: Job | None = None

        async def main(stop: asyncio.Event) -> None:
            nonlocal found
            with progress("lines read", 0) as shown:
                told = _Watching(shown)
                found = await bring_file(config, project, file.name, opened, mapping, told, wait=wait)

        loop.run(main)
    assert found is not None, "main ends with one, or raises"
    if as_json:
        print_json(msgspec.structs.asdict(found))
    else:
        print(_sentence(found))
    if found.state in ("failed", "cancelled"):
        raise typer.Exit(1)


class _Watching:
    """Draws how far a job is, and says so once it does not move."""

    def __init__(self, shown: Any) -> None:
        self._shown = shown
        self._done = -1
        self._moved_s = 0.0

    def __call__(self, job: Job) -> None:
        self._shown.reach(job.done, job.total)
        now_s = asyncio.get_running_loop().time()
        if job.done != self._done:
            self._done, self._moved_s = job.done, now_s
        elif now_s - self._moved_s > STILL_S:
            print("it waits: the service `replay` does it; tidegate-cloud run replay", file=sys.stderr)
            self._moved_s = now_s


def _mapping(given: dict[str, Any]) -> Any:
    from cloud.model.importing import ImportMapping

    try:
        return msgspec.convert(given, ImportMapping)
    except msgspec.ValidationError as error:
        raise UserError(str(error), "see tidegate-cloud import --help") from None


def _pairs(option: str, texts: Sequence[str] | None) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts or ()]
    for name, mark, value in pairs:
        if not (name and mark and value):
            raise UserError(f"{option} {name}{mark}{value} is no pair", f"write it as {option} NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _sentence(job: Job) -> str:
    records, rejected = job.result.get("records", 0), job.result.get("rejected", 0)
    counts = f"{number_text(records)} messages handed on, {number_text(rejected)} lines cannot be read"
    why = f"; GET /api/v1/imports/problems/{job.number} says why" if rejected else ""
    state = {"done": "read", "failed": f"failed: {job.error}", "cancelled": "cancelled"}.get(
        job.state, f"begun, as job {job.number}"
    )
    return f"{state}: {counts}{why}"
