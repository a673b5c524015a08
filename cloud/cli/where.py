"""`tidegate-cloud where`: where a message is, and what happens to it next."""

from __future__ import annotations

import asyncio
import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloud.cli.options import AsJson, ConfigFile, DataDir, load_config
from cloud.cli.times import time_ms
from tidegate import loop
from tidegate.console import UserError, print_json

if TYPE_CHECKING:
    from cloud.model.where import Place


def where(
    message: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="A message's id, or a record as epoch/number.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="NETWORK:KEY:ALIAS", help="Without an id: whose message it is, by an alias.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="And its time, as device or gateway gave it: RFC 3339 or Unix milliseconds.")
    ] = None,
    project: Annotated[str | None, typer.Option(help="Needed with --device where there are several.")] = None,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Tell where a message is, since when, and what to do or what happens next."""
    if (message is None) == (device is None) or (device is None) != (time is None):
        remedy = "tidegate-cloud where ID, or tidegate-cloud where --device NETWORK:KEY:ALIAS --time TIME"
        raise UserError("name a message by its id, or by device and time", remedy)
    config = load_config(config_file, data_dir)
    from cloud.app import where_is

    places: list[Place] = []

    async def main(stop: asyncio.Event) -> None:
        if message is not None:
            places.extend(await where_is(config, project, message))
        elif device is not None and time is not None:
            places.extend(await where_is(config, project, (_alias(device), time_ms(time))))

    loop.run(main)
    if as_json:
        print_json(places)
    else:
        print("\n\n".join(_sheet(place) for place in places))


def _alias(text: str) -> tuple[str, str, str]:
    parts = text.split(":", 2)
    if len(parts) != 3 or not all(parts):
        raise UserError(f"{text!r} is no alias", "write it as network:key:alias")
    return parts[0], parts[1], parts[2]


def _sheet(place: Place) -> str:
    lines = [(place.state if place.certain else f"{place.state}?", place.text)]
    if place.since_time is not None:
        lines.append(("since", _time(place.since_time)))
    lines += [(name.replace("_", " "), _shown(name, value)) for name, value in place.facts.items()]
    if place.next:
        lines.append(("next", place.next))
    return "\n".join(f"{name:<15} {text}" for name, text in lines)


def _shown(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and (name == "time" or name.endswith("_time")):
        return _time(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown('_time', item)}" for key, item in value.items()) or "-"
    return "-" if value is None else str(value)


def _time(ms: int) -> str:
    return datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC).isoformat(timespec="milliseconds")
