"""`tidegate-sim send`: one message, as a device would send it."""

from __future__ import annotations

import asyncio
import difflib
import time
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from firmware_sim.cli.options import DEFAULT_RUN_FOLDER, AsJson, RunFolder, assignment
from firmware_sim.devices.packets import (
    CONNECT_REFUSALS,
    DISCONNECT,
    ConnAck,
    Incoming,
    PacketReader,
    ProtocolError,
    PubAck,
    encode_connect,
    encode_publish,
)
from firmware_sim.devices.roster import PORT_MAX, RosterDevice
from firmware_sim.run_folder import DemoState, no_demo, read_state
from tidegate.console import UserError, print_json

ANSWER_S: Final = 10.0
"""For each of connection, CONNACK and PUBACK; a disk on a bad day takes milliseconds."""
READ_BYTES: Final = 4096
NAMES_MAX: Final = 5
"""Named where no name is like the one that was written; all are in demo.json."""


def send(
    device: Annotated[str, typer.Argument(help="Name of the device: bench-01.")],
    values: Annotated[list[str], typer.Argument(metavar="NAME=VALUE…", help="What it measures: temperature=71.5.")],
    network_credential: Annotated[
        bool, typer.Option("--network-credential", help="Connect as a device that nobody has created yet.")
    ] = False,
    password: Annotated[str | None, typer.Option(help="Device's own; default: the demo's.")] = None,
    topic: Annotated[str, typer.Option(help="Topic of the message.")] = "up",
    host: Annotated[str | None, typer.Option(help="Gateway's address; default: the demo's.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=PORT_MAX, help="Gateway's MQTT port.")] = None,
    as_json: AsJson = False,
    run_folder: RunFolder = DEFAULT_RUN_FOLDER,
) -> None:
    """Send one message by MQTT, QoS 1, and wait for its acknowledgement."""
    payload = dict(assignment(value) for value in values)
    demo = _demo(run_folder, password)
    host, port = host or demo.mqtt_host, port or demo.mqtt_port or 1883
    secret = password or choose_password(demo, device, network_credential=network_credential)
    latency_ms = asyncio.run(_send(host, port, device, secret, topic, payload))
    if as_json:
        print_json({"device": device, "host": host, "port": port, "data": payload, "puback_ms": round(latency_ms, 2)})
        return
    typer.echo(f"acknowledged in {latency_ms:.1f} ms: it is on the gateway's disk")
    for line in _where(demo, device, network_credential):
        typer.echo(f"  {line}")


def _demo(run_folder: Path, password: str | None) -> DemoState:
    """The demo's; where there is none, a password must do."""
    demo = read_state(run_folder)
    if demo is None and password is None:
        raise no_demo(run_folder)
    return demo or DemoState()


def choose_password(demo: DemoState, device: str, *, network_credential: bool) -> str:
    """Raises UserError where the demo knows none."""
    if network_credential:
        if not demo.network_password:
            raise UserError("the demo has no network credential", "make run, or --password")
        return demo.network_password
    passwords = {known.name: known.password for known in _known(demo)}
    if device not in passwords:
        raise UserError(
            f"the demo has no device {device!r}",
            f"{_suggestion(device, list(passwords))}; or --network-credential, for one that nobody has created yet;"
            " or --password",
        )
    return passwords[device]


def _suggestion(name: str, known: list[str]) -> str:
    if close := difflib.get_close_matches(name, known, n=1):
        return f"did you mean {close[0]}?"
    more = f" and {len(known) - NAMES_MAX} more" if len(known) > NAMES_MAX else ""
    return f"one of {', '.join(known[:NAMES_MAX]) or 'none'}{more}"


def _known(demo: DemoState) -> list[RosterDevice]:
    return [*([demo.bench] if demo.bench else []), *demo.devices]


def _where(demo: DemoState, device: str, unknown: bool) -> list[str]:
    if not demo.api:
        return []
    host = demo.api.removeprefix("http://")
    if unknown:
        return [
            f"if nobody has created {device} yet, it waits in the inbox:",
            f"curl -sH @.run/auth '{host}/api/v1/inbox?project_id={demo.project}'",
        ]
    return [f"curl -sH @.run/auth {host}/api/v1/devices/{demo.network}:{demo.alias_key}:{device}/current"]


async def _send(host: str, port: int, name: str, password: str, topic: str, payload: dict[str, Any]) -> float:
    """Milliseconds from PUBLISH to PUBACK."""
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        raise UserError(f"no gateway at {host}:{port}: {error or 'no answer'}", "make run") from None
    packets = PacketReader()
    try:
        # A session of its own beside the device's: a message by hand must not throw the device out.
        client_id = f"{name}-by-hand-{time.time_ns():x}"
        writer.write(encode_connect(client_id=client_id, user=name, password=password, keep_alive_s=60, clean=True))
        answer = await _next(reader, packets)
        if not isinstance(answer, ConnAck) or answer.return_code:
            code = answer.return_code if isinstance(answer, ConnAck) else 0
            raise UserError(
                f"{host}:{port} refused {name}: {CONNECT_REFUSALS.get(code, 'an unexpected answer')}",
                "the password is in .run/demo.json; an unknown device needs --network-credential",
            )
        began_s = time.perf_counter()
        writer.write(encode_publish(topic.encode(), msgspec.json.encode(payload), packet_id=1))
        if await _next(reader, packets) != PubAck(1):
            raise UserError(f"{host}:{port} did not acknowledge the message")
        latency_ms = 1000 * (time.perf_counter() - began_s)
        writer.write(DISCONNECT)
        return latency_ms
    finally:
        writer.close()


async def _next(reader: asyncio.StreamReader, packets: PacketReader) -> Incoming:
    """Every answer of this conversation is one packet, and nothing follows it unasked."""
    try:
        async with asyncio.timeout(ANSWER_S):
            while data := await reader.read(READ_BYTES):
                if found := packets.feed(data):
                    return found[0]
    except (OSError, ProtocolError) as error:
        raise UserError(
            f"the gateway did not answer: {error or 'too late'}", "its log: .run/logs/gateway.log"
        ) from None
    raise UserError("the gateway closed the connection", "its log: .run/logs/gateway.log")
