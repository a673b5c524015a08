"""`tidegate-edge where`: the exact place of a record at this gateway."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import urlencode

import typer

from edge.cli.options import AsJson, ConfigFile, DataDir

COLUMNS: Final = {"id": "id", "place": "place", "record": "record", "text": "means"}


def where(
    record: Annotated[str, typer.Argument(metavar="ID", help="A message's id, or a record's as epoch/number.")],
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show where a record is: in the log, in flight, accepted, evicted, damaged or unknown."""
    from edge.cli.gateway import RunningGateway
    from edge.status.where import Where
    from tidegate.console import print_json, show

    found = RunningGateway(config_file, data_dir).get(f"/where?{urlencode({'id': record})}", Where)
    if as_json:
        print_json(found)
        return
    name = "" if found.epoch is None else f"{found.epoch}/{found.seq}"
    text = found.text
    if found.refused:
        reasons = ", ".join(f"{code} {count:,}" for code, count in sorted(found.refused.items()))
        text += f"; refused before the log, and so without an id, since the start: {reasons}"
    show([{"id": found.id, "place": found.place, "record": name, "text": text}], columns=COLUMNS, as_json=False)
