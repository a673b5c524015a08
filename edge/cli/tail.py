"""`tidegate-edge tail`: messages as the gateway resolves them."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from edge.cli.options import AsJson, ConfigFile, DataDir

if TYPE_CHECKING:
    from edge.status.rejects import Rejections
    from edge.status.tail import RefusedEvent, RejectedEvent

SHOWN_MAX: Final = 10
"""Of what was turned away before: the last ones, which say best what is wrong now."""


def tail(
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
    device: Annotated[
        str, typer.Option("--device", help="Only this one: alias, alias_key:alias, network:alias_key:alias or number.")
    ] = "",
    listener: Annotated[str, typer.Option("--listener", help="Only what this listener took or refused.")] = "",
    rejected: Annotated[bool, typer.Option("--rejected", help="Only what was turned away.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show messages as they come, unknown devices' and rejected ones too, until Ctrl-C."""
    from edge.cli.gateway import RunningGateway

    gateway = RunningGateway(config_file, data_dir)
    if listener:
        from edge.status.accounting import Accounting
        from tidegate.console import UserError

        names = [one.name for one in gateway.get("/accounting", Accounting).listeners]
        if listener not in names:
            raise UserError(f"no listener is named {listener!r}", f"there are: {', '.join(names)}")
    if rejected:
        from edge.status.rejects import Rejections

        for event in last_rejected(gateway.get("/rejects", Rejections), device, listener):
            print(msgspec.json.encode(event).decode() if as_json else line(msgspec.to_builtins(event)), flush=True)
        print("waiting for the next one", file=sys.stderr)
    filters = {"device": device, "listener": listener, "rejected": "1" if rejected else ""}
    query = {name: value for name, value in filters.items() if value}
    for name, data in gateway.events("/tail", query):
        if name == "gap":
            print(f"missed {msgspec.json.decode(data)['missed']:,}: they came too fast to be shown", file=sys.stderr)
        elif as_json:
            print(data, flush=True)
        else:
            print(line(msgspec.json.decode(data)), flush=True)
    print("the gateway stopped", file=sys.stderr)


def last_rejected(known: Rejections, device: str, listener: str = "") -> list[RejectedEvent | RefusedEvent]:
    """The last SHOWN_MAX, as events of the tail, oldest first."""
    from edge.status.tail import TailFilter, refused_event, rejected_event

    wanted = TailFilter(device, listener)
    events: list[tuple[int, RejectedEvent | RefusedEvent]] = [
        (one.received_time, rejected_event(one))
        for one in reversed(known.rejected)
        if wanted.takes_from(one.listener) and wanted.takes(one.network, one.alias_key, one.alias)
    ]
    events += [
        (one.time_ms, refused_event(one))
        for one in reversed(known.refused)
        if wanted.takes_from(one.listener) and wanted.takes_login("", one.user_name)
    ]
    events.sort(key=lambda timed: timed[0])
    return [event for _, event in events[-SHOWN_MAX:]]


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
