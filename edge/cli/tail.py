"""`tidegate-edge tail`: messages as the gateway resolves them."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Annotated, Any

import msgspec
import typer

from edge.cli.options import AsJson, ConfigFile, DataDir


def tail(
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
    device: Annotated[
        str, typer.Option("--device", help="Only this one: alias, key:alias, network:key:alias or number.")
    ] = "",
    rejected: Annotated[bool, typer.Option("--rejected", help="Only what was turned away.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show messages as they come, unknown devices' and rejected ones too, until Ctrl-C."""
    from edge.cli.gateway import RunningGateway

    gateway = RunningGateway(config_file, data_dir)
    query = {"device": device} if device else {}
    if rejected:
        query["rejected"] = "1"
    for name, data in gateway.events("/tail", **query):
        if name == "gap":
            print(f"missed {msgspec.json.decode(data)['missed']:,}: they came too fast to be shown", file=sys.stderr)
        elif as_json:
            print(data, flush=True)
        else:
            print(line(msgspec.json.decode(data)), flush=True)
    print("the gateway stopped", file=sys.stderr)


def line(event: dict[str, Any]) -> str:
    """One event for people."""
    time_ms = event.get("received_time", event.get("time_ms", 0))
    at = datetime.fromtimestamp(time_ms / 1000).astimezone().strftime("%H:%M:%S.%f")[:-3]
    match event["kind"]:
        case "message":
            known = "" if event["device_id"] else "  unresolved: no device has this alias"
            data = event["data"]
            shown = f"({event['size']:,} bytes)" if data is None else msgspec.json.encode(data).decode()
            return f"{at}  {_name(event)}  {shown}{known}"
        case "rejected":
            return f"{at}  {_name(event)}  rejected: {event['code']}: {event['detail']}  {_payload(event['payload'])}"
        case _:
            who = event["user_name"] or "(no login)"
            what = f"refused: {event['code']}: {event['detail']}"
            return f"{at}  {event['listener']} {event['peer']} {who}  {what}  {_payload(event['payload'])}".rstrip()


def _name(event: dict[str, Any]) -> str:
    return f"{event['network']}:{event['alias_key']}:{event['alias']}"


def _payload(payload: dict[str, Any]) -> str:
    if not payload["size"]:
        return ""
    text = payload["text"]
    shown = text if text is not None and text.isprintable() else payload["hex"]
    cut = "" if len(payload["hex"]) == 2 * payload["size"] else f"… ({payload['size']:,} bytes)"
    return f"{shown}{cut}"
