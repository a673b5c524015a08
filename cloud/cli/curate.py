"""`tidegate-cloud curate`: let go of what retention lets go of, now."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from cloud.cli.options import AsJson, ConfigFile, DataDir, load_config
from tidegate import loop
from tidegate.console import number_text, print_json, show

if TYPE_CHECKING:
    from cloud.model.curation import Report

COLUMNS: Final = {
    "project": "project",
    "table": "table",
    "rule": "rule",
    "action": "action",
    "rows_before": "rows before",
    "rows": "rows",
    "rows_after": "after",
    "row_bytes": "bytes",
}


def curate(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
    project: Annotated[str | None, typer.Option(help="Only this project's reports.")] = None,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Let go of what is older than the projects' retention, and report it: rows and bytes, before and after."""
    config = load_config(config_file, data_dir)
    from cloud.app import curate as carry_out

    reports: list[Report] = []

    async def main(stop: asyncio.Event) -> None:
        reports.extend(await carry_out(config, project, stop, dry_run=dry_run))

    loop.run(main)
    if as_json:
        print_json(reports)
        return
    lines = [
        {"project": report.project_id, **msgspec.structs.asdict(line)} for report in reports for line in report.lines
    ]
    if lines:
        show(lines, columns=COLUMNS, as_json=False)
    else:
        print("nothing is older than its retention")
    for size in {size.table: size for report in reports for size in report.sizes}.values():
        before, after = number_text(size.bytes_before), number_text(size.bytes_after)
        print(f"{size.table}: {before} bytes on disk before, {after} after")
    for problem in sorted({report.problem for report in reports if report.problem}):
        print(f"not all is done: {problem}")
