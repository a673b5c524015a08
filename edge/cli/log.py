"""`tidegate-edge log`: the durable log."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from edge.cli.options import AsJson, ConfigFile, DataDir, elsewhere, load_config

app = typer.Typer(help="The durable log.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """The durable log."""


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="SQLite file to write; it must not exist.", metavar="FILE.sqlite")],
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Write every record of the log into an SQLite file, whether the gateway runs or not."""
    from edge.app import LOG_FOLDER
    from sync.log.export import TABLE
    from sync.log.export import export as export_log
    from tidegate.console import UserError, print_json, progress

    directory = load_config(config_file, data_dir).data_dir / LOG_FOLDER
    if file.exists():
        raise UserError(f"{file} exists already", "give the path of a new file")
    if not file.parent.is_dir():
        raise UserError(f"there is no folder {file.parent}", "make it, or give a path in a folder that is there")
    aside = file.with_name(f"{file.name}.part")
    aside.unlink(missing_ok=True)  # left by an export that was cut off
    try:
        with progress("bytes read") as shown:
            done = export_log(directory, aside, shown.reach)
        aside.rename(file)
    except FileNotFoundError as error:
        raise UserError(
            f"there is no log in {directory}: {error.strerror}",
            elsewhere(config_file, data_dir) or "give the gateway's --config or --data",
        ) from None
    except OSError as error:
        raise UserError(
            f"cannot export {directory} to {file}: {error.strerror}", "see the folders' owners and room"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
    if as_json:
        print_json({"file": file, "table": TABLE, "records": done.records, "unreadable_blocks": done.unreadable_blocks})
        return
    print(f"{done.records:,} record{'' if done.records == 1 else 's'} in {file}, table {TABLE}")
    if done.unreadable_blocks:
        print(f"{done.unreadable_blocks:,} blocks could not be read: they are of another version")
