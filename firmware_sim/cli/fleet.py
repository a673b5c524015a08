"""`tidegate-sim fleet`: many simulated devices."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from firmware_sim.cli.options import DEFAULT_RUN_FOLDER, AsJson, RunFolder, duration_s
from firmware_sim.devices.roster import (
    OF_ONE_PLACE,
    PORT_MAX,
    PROTOCOLS,
    WITH_PASSWORD,
    Protocol,
    RosterDevice,
    check_roster,
    read_roster,
)
from firmware_sim.devices.surroundings import DeviceSettings
from firmware_sim.fleet import Fleet, FleetPlan, FleetState
from firmware_sim.ledger import LedgerWriter
from firmware_sim.run_folder import DemoState, no_demo, read_state
from firmware_sim.signals import PROFILES
from tidegate.console import Live, UserError, live, print_json
from tidegate.loop import run

RATE_EACH: Final = 1.0
"""Messages a second of one device, where nothing else is said."""
DEVICES_MAX: Final = 20_000
"""In one process: each takes a socket, and a local address has 28,000 ports for them."""
UNLISTED: Final = tuple(protocol for protocol in PROTOCOLS if protocol not in OF_ONE_PLACE)
COLUMNS: Final = {
    "connected": "connected",
    "made": "made",
    "sent": "sent",
    "acknowledged": "acknowledged",
    "rate": "a second",
    "puback_p50_ms": "p50 ms",
    "puback_p99_ms": "p99 ms",
    "waiting": "buffered",
    "dropped": "dropped",
}


class Summary(msgspec.Struct, frozen=True):
    """What `--json` prints."""

    complete: bool
    """All that was made is acknowledged."""
    seconds: float
    ledger: str
    fleet: FleetState


def fleet(
    count: Annotated[
        int | None, typer.Option(min=1, max=DEVICES_MAX, help="How many devices; default: all of the list.")
    ] = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Messages a second, of all devices together.")] = None,
    rate_each: Annotated[float | None, typer.Option(min=0.001, help="Messages a second of each device. [1]")] = None,
    devices: Annotated[
        Path | None, typer.Option(help="CSV or JSON list of devices with credentials; default: the demo's.")
    ] = None,
    network: Annotated[str | None, typer.Option(help="Network of devices that are not in a list.")] = None,
    network_password: Annotated[
        str | None,
        typer.Option(help="Network's credential, for devices that are in no list.", envvar="TIDEGATE_NETWORK_PASSWORD"),
    ] = None,
    alias_key: Annotated[str, typer.Option(help="Alias key of devices that are not in a list.")] = "serial",
    protocol: Annotated[str, typer.Option(help="What such devices speak: " + ", ".join(UNLISTED) + ".")] = "mqtt",
    profile: Annotated[str, typer.Option(help="What such devices measure: " + ", ".join(PROFILES) + ".")] = "pump",
    host: Annotated[str | None, typer.Option(help="Gateway's address; default: the demo's.")] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=PORT_MAX, help="Gateway's port, for devices that name none.")
    ] = None,
    messages: Annotated[int | None, typer.Option(min=1, help="End after so many, all devices together.")] = None,
    seconds: Annotated[str | None, typer.Option(help="End after this time (90, 60s, 5m).")] = None,
    drain: Annotated[str, typer.Option(help="How long to wait for the last acknowledgements.")] = "60s",
    qos: Annotated[int, typer.Option(min=0, max=1, help="MQTT quality of service.")] = 1,
    window: Annotated[
        int, typer.Option(min=1, max=1000, help="Messages in flight of a device, where its protocol allows several.")
    ] = 20,
    buffer: Annotated[int, typer.Option(min=2, help="Messages that a device can keep; then the oldest goes.")] = 1000,
    obey: Annotated[
        bool, typer.Option("--obey", help="Devices run the commands that they are sent, and answer.")
    ] = False,
    keep_alive: Annotated[int, typer.Option(min=2, max=65_535, help="MQTT keep-alive, seconds.")] = 30,
    reboots_per_hour: Annotated[float, typer.Option(min=0, help="Power failures of each device.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of measurements and timing.")] = 1,
    ledger: Annotated[Path | None, typer.Option(help="Folder of the ledger; default: the demo's.")] = None,
    state_file: Annotated[Path | None, typer.Option(help="Write the state there as JSON, each second.")] = None,
    as_json: AsJson = False,
    run_folder: RunFolder = DEFAULT_RUN_FOLDER,
) -> None:
    """Many devices that measure, send, keep what is unacknowledged, and connect again.

    Ends by itself with --messages or --seconds, else with Ctrl-C. Exit code 0: all that was made is acknowledged.
    """
    found = read_state(run_folder)
    spoken = unlisted_protocol(protocol)
    if found is None and devices is None and network_password is None and spoken in WITH_PASSWORD:
        raise no_demo(run_folder)
    demo = found or DemoState()
    roster = choose_devices(
        read_roster(devices) if devices else demo.devices,
        count,
        RosterDevice(
            "",
            password=network_password or demo.network_password,
            network=network or demo.network,
            alias_key=alias_key,
            profile=profile,
            protocol=spoken,
        ),
    )
    settings = DeviceSettings(
        host=host or demo.mqtt_host,
        port=port or 0,
        qos=qos,
        window=window,
        buffer_messages=max(buffer, window + 1),
        keep_alive_s=keep_alive,
        obeys=obey,
    )
    plan = FleetPlan(
        tuple(placed(roster, demo, port)),
        settings,
        each_rate(rate, rate_each, len(roster)),
        messages=messages,
        seconds=None if seconds is None else duration_s(seconds),
        drain_s=duration_s(drain),
        reboots_per_hour=reboots_per_hour,
        seed=seed,
    )
    directory = ledger or Path(demo.ledger or run_folder / "ledger")
    summary = _run(plan, directory, state_file, as_json)
    if as_json:
        print_json(summary)
    else:
        typer.echo(_last_words(summary))
    endless = messages is None and seconds is None
    raise typer.Exit(0 if summary.complete or endless else 1)


def choose_devices(listed: Sequence[RosterDevice], count: int | None, unlisted: RosterDevice) -> list[RosterDevice]:
    """The first `count` of the list; where it is shorter, devices like `unlisted`, named sim-0001 and so on, which
    nobody has created."""
    wanted = len(listed) if count is None else count
    if not wanted:
        raise UserError("no devices are known", "make run; or name a list with --devices; or say --count")
    chosen = list(listed[:wanted])
    if len(chosen) < wanted:
        if not unlisted.password and unlisted.protocol in WITH_PASSWORD:
            raise UserError(
                f"{wanted} devices are wanted, {len(chosen)} are listed, and others need the network's credential",
                "--network-password",
            )
        names = (f"sim-{number:04d}" for number in itertools.count(1))
        chosen += [
            msgspec.structs.replace(unlisted, name=name) for name in itertools.islice(names, wanted - len(chosen))
        ]
    check_roster(chosen, "the fleet")
    return chosen


def unlisted_protocol(name: str) -> Protocol:
    """Of devices that are in no list. Raises UserError."""
    for protocol in PROTOCOLS:
        if protocol == name:
            if protocol in OF_ONE_PLACE:
                raise UserError(
                    f"by {protocol}, each device has a place of its own", "name them in a list with --devices"
                )
            return protocol
    raise UserError(f"no protocol {name!r}", f"one of {', '.join(UNLISTED)}; others in a list with --devices")


def placed(devices: Sequence[RosterDevice], demo: DemoState, port: int | None) -> list[RosterDevice]:
    """`port`: of devices that name none; None: the demo's for those that speak MQTT."""
    if port is not None or not demo.mqtt_port:
        return list(devices)
    return [
        msgspec.structs.replace(device, port=demo.mqtt_port)
        if device.protocol == "mqtt" and not device.port
        else device
        for device in devices
    ]


def each_rate(rate: float | None, rate_each: float | None, devices: int) -> float:
    if rate is not None and rate_each is not None:
        raise UserError("--rate and --rate-each exclude each other", "--rate is of all devices together")
    if rate is not None:
        return rate / devices
    return RATE_EACH if rate_each is None else rate_each


def _run(plan: FleetPlan, directory: Path, state_file: Path | None, as_json: bool) -> Summary:
    started_s = time.monotonic()
    last: list[FleetState] = []
    with LedgerWriter(directory, wall_ms=_wall_ms) as writer:

        async def main(stop: asyncio.Event) -> None:
            fleet = Fleet(plan, writer, wall_ms=_wall_ms)
            if as_json:
                last.append(await fleet.run(stop, _reporter(None, state_file)))
            else:
                with live(COLUMNS) as shown:
                    last.append(await fleet.run(stop, _reporter(shown, state_file)))

        run(main)
    state = last[-1]
    return Summary(state.is_complete, round(time.monotonic() - started_s, 1), str(directory), state)


def _reporter(shown: Live | None, state_file: Path | None) -> Callable[[FleetState], None]:
    def report(state: FleetState) -> None:
        if state_file is not None:
            aside = state_file.with_name(state_file.name + ".new")
            aside.write_bytes(msgspec.json.encode(state))
            aside.replace(state_file)
        if shown is not None:
            row: dict[str, Any] = msgspec.structs.asdict(state)
            row["connected"] = f"{state.connected} of {state.devices}"
            shown.show([row], f"refused: {state.refusal}" if state.refusal else "")

    return report


def _last_words(summary: Summary) -> str:
    state = summary.fleet
    words = (
        f"{state.made:,} made, {state.acknowledged:,} acknowledged, {state.resent:,} sent again, "
        f"{state.dropped:,} dropped, {state.waiting:,} unacknowledged, in {summary.seconds:g} s"
    )
    return f"{words} · refused: {state.refusal}" if state.refusal else words


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
