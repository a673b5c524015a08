"""`tidegate-sim send`: one message, as a device would send it."""

from __future__ import annotations

import asyncio
import difflib
import random
import time
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from firmware_sim.cli.fleet import UNLISTED, unlisted_protocol
from firmware_sim.cli.options import DEFAULT_RUN_FOLDER, AsJson, RunFolder, assignment
from firmware_sim.devices.carriers import CARRIERS
from firmware_sim.devices.carriers.carrier import Carrier
from firmware_sim.devices.orders import Answer
from firmware_sim.devices.outbox import Outgoing
from firmware_sim.devices.roster import OF_ONE_PLACE, PORT_MAX, WITH_PASSWORD, RosterDevice
from firmware_sim.devices.surroundings import DeviceSettings, Runtime
from firmware_sim.run_folder import DemoState, no_demo, read_state
from tidegate.console import UserError, print_json

ANSWER_S: Final = 10.0
"""For each of connection and acknowledgement; a disk on a bad day takes milliseconds."""
NAMES_MAX: Final = 5
"""Named where no name is like the one that was written; all are in demo.json."""


def send(
    device: Annotated[str, typer.Argument(help="Name of the device: bench-01.")],
    values: Annotated[list[str], typer.Argument(metavar="NAME=VALUE…", help="What it measures: temperature=71.5.")],
    network_credential: Annotated[
        bool, typer.Option("--network-credential", help="Connect as a device that nobody has created yet.")
    ] = False,
    password: Annotated[str | None, typer.Option(help="Device's own; default: the demo's.")] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="What it speaks: " + ", ".join(UNLISTED) + "; default: as the demo knows it, else mqtt."),
    ] = None,
    topic: Annotated[str, typer.Option(help="MQTT: topic of the message.")] = "up",
    path: Annotated[str | None, typer.Option(help="CoAP, HTTP: path of its resource; default: its name.")] = None,
    host: Annotated[str | None, typer.Option(help="Gateway's address; default: the demo's.")] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=PORT_MAX, help="Gateway's port; default: the demo's, else the usual one.")
    ] = None,
    as_json: AsJson = False,
    run_folder: RunFolder = DEFAULT_RUN_FOLDER,
) -> None:
    """Send one message and wait for its acknowledgement: by MQTT with QoS 1, or as the device speaks."""
    payload = dict(assignment(value) for value in values)
    spoken = None if protocol is None else unlisted_protocol(protocol)
    demo = _demo(run_folder, needed=password is None and (spoken or "mqtt") in WITH_PASSWORD)
    known = next((one for one in _known(demo) if one.name == device), None)
    if known is None or (spoken is not None and known.protocol != spoken):
        known = RosterDevice(device, network=demo.network, alias_key=demo.alias_key, protocol=spoken or "mqtt")
    if known.protocol in OF_ONE_PLACE:
        commands = {bench.device.name: bench.command for bench in demo.benches.values()}
        raise UserError(
            f"{device} speaks {known.protocol}, where the gateway comes to it",
            commands.get(device, "tidegate-sim fleet"),
        )
    secret = password or ""
    if not secret and known.protocol in WITH_PASSWORD:
        secret = choose_password(demo, device, network_credential=network_credential)
    identity = msgspec.structs.replace(
        known,
        password=secret,
        path=known.path if path is None else path,
        host=host or known.host or demo.mqtt_host,
        port=port or known.port or (demo.mqtt_port if known.protocol == "mqtt" else 0),
    )
    latency_ms = asyncio.run(_send(identity, topic, payload))
    if as_json:
        print_json({"device": device, "protocol": identity.protocol, "data": payload, "ms": round(latency_ms, 2)})
        return
    typer.echo(f"acknowledged in {latency_ms:.1f} ms: it is on the gateway's disk")
    for line in _where(demo, identity, network_credential):
        typer.echo(f"  {line}")


def _demo(run_folder: Path, *, needed: bool) -> DemoState:
    """`needed`: nothing else says how the device gets in."""
    demo = read_state(run_folder)
    if demo is None and needed:
        raise no_demo(run_folder)
    return demo or DemoState()


def choose_password(demo: DemoState, device: str, *, network_credential: bool) -> str:
    """Raises UserError where the demo knows none."""
    if network_credential:
        if not demo.network_password:
            raise UserError("the demo has no network credential", "make run, or --password")
        return demo.network_password
    known = {one.name: one for one in _known(demo)}
    if device not in known:
        raise UserError(
            f"the demo has no device {device!r}",
            f"{_suggestion(device, list(known))}; or --network-credential, for one that nobody has created yet;"
            " or --password",
        )
    found = known[device]
    if not found.password:
        raise UserError(f"{device} has no credential: it speaks {found.protocol}", "without --protocol, or --password")
    return found.password


def _suggestion(name: str, known: list[str]) -> str:
    if close := difflib.get_close_matches(name, known, n=1):
        return f"did you mean {close[0]}?"
    more = f" and {len(known) - NAMES_MAX} more" if len(known) > NAMES_MAX else ""
    return f"one of {', '.join(known[:NAMES_MAX]) or 'none'}{more}"


def _known(demo: DemoState) -> list[RosterDevice]:
    return [*(bench.device for bench in demo.benches.values()), *demo.devices]


def _where(demo: DemoState, device: RosterDevice, unknown: bool) -> list[str]:
    if not demo.api:
        return []
    host = demo.api.removeprefix("http://")
    if unknown:
        return [
            f"if nobody has created {device.name} yet, it waits in the inbox:",
            f"curl -sH @.run/auth '{host}/api/v1/inbox?project_id={demo.project}'",
        ]
    return [f"curl -sH @.run/auth {host}/api/v1/devices/{device.network}:{device.alias_key}:{device.name}/current"]


class _ByHand:
    """Whose carrier it is, for one message."""

    def __init__(self, message: Outgoing) -> None:
        self.acknowledged_ms: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.is_down = asyncio.Event()
        self._message = message
        self._sent_s = 0.0

    def went_up(self, carrier: Carrier) -> None:
        self._sent_s = time.perf_counter()
        carrier.send((self._message,))

    def acknowledged(self, carrier: Carrier, packet_ids: list[int]) -> None:
        if not self.acknowledged_ms.done():
            self.acknowledged_ms.set_result(1000 * (time.perf_counter() - self._sent_s))

    def sent_again(self, carrier: Carrier, message: Outgoing) -> None: ...

    def fetched(self, carrier: Carrier) -> None: ...

    def told(self, carrier: Carrier, name: str, command_id: str) -> Answer | None: ...

    def waits_since_s(self) -> float | None:
        return None

    def went_down(self, carrier: Carrier, reason: str, *, refused: bool) -> None:
        self.is_down.set()
        if not self.acknowledged_ms.done():
            self.acknowledged_ms.set_exception(_RefusedError(reason) if refused else ConnectionError(reason))


class _RefusedError(Exception):
    """The gateway said no."""


async def _send(identity: RosterDevice, topic: str, payload: dict[str, Any]) -> float:
    """Milliseconds from sending to the acknowledgement."""
    name, place = identity.name, f"{identity.host}:{identity.port or CARRIERS[identity.protocol].usual_port}"
    if identity.names_itself:
        payload = {identity.alias_key: name, **payload}
    elif identity.protocol == "mqtt":
        # A session of its own beside the device's: a message by hand must not throw the device out.
        by_hand = f"{name}-by-hand-{time.time_ns():x}"
        identity = msgspec.structs.replace(identity, name=by_hand, user=identity.user or name)
    runtime = Runtime(asyncio.get_running_loop(), random.Random())
    message = Outgoing(0, 0, msgspec.json.encode(payload), 0.0)
    message.packet_id = 1
    owner = _ByHand(message)
    settings = DeviceSettings(topic=topic, answer_s=ANSWER_S, resend_s=ANSWER_S)
    carrier = CARRIERS[identity.protocol](owner, identity, settings, runtime)
    try:
        async with asyncio.timeout(ANSWER_S):
            await carrier.open()
    except OSError as error:
        raise UserError(f"no gateway at {place}: {error or 'no answer'}", "make run") from None
    try:
        async with asyncio.timeout(ANSWER_S):
            return await owner.acknowledged_ms
    except _RefusedError as error:
        raise UserError(
            f"{place} refused {name}: {error}",
            "the password is in .run/demo.json; an unknown device needs --network-credential",
        ) from None
    except OSError as error:  # TimeoutError is one
        raise UserError(
            f"the gateway did not answer: {error or 'too late'}", "its log: .run/logs/gateway.log"
        ) from None
    finally:
        carrier.close()
        await owner.is_down.wait()
        runtime.timers.close()
