"""`tidegate-sim scenario`: a timeline of faults against a running gateway, and the proof at its end."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Annotated, Final

import httpx
import msgspec
import typer

from firmware_sim.cli.fleet import choose_devices, placed
from firmware_sim.cli.options import DEFAULT_RUN_FOLDER, AsJson, RunFolder, duration_s
from firmware_sim.cli.verify import EXIT_CODES, print_proof
from firmware_sim.cloud_api import ApiError, CloudApi, UnreachableError
from firmware_sim.devices.roster import PORT_MAX, RosterDevice, read_roster
from firmware_sim.devices.surroundings import DeviceSettings
from firmware_sim.run_folder import DemoState, no_demo, read_state, running_state
from firmware_sim.scenarios.enlist import enlist
from firmware_sim.scenarios.events import LinkEvent, PartEvent
from firmware_sim.scenarios.recording import Sample
from firmware_sim.scenarios.report import page
from firmware_sim.scenarios.runner import Run, Runner, RunPlan, Scene
from firmware_sim.scenarios.site import NO_PROCESSES, NO_PROXY
from firmware_sim.scenarios.timeline import find, read, shipped
from firmware_sim.status_line import fitting, line_width
from firmware_sim.verify import VerifyPlan
from tidegate.console import EXIT_INTERRUPTED, Live, UserError, live, print_json, show
from tidegate.loop import run as run_loop

SPEED_MAX: Final = 100.0
"""Devices that reconnect within seconds see nothing of faster outages."""
FOLDER: Final = "scenario"
"""Below the demo's: the scenario's devices and their ledger."""


def scenario(
    name: Annotated[str | None, typer.Argument(metavar="NAME|FILE", help="A named one, or a TOML file.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Show the named ones.")] = False,
    seed: Annotated[int, typer.Option(help="Of what is left to chance: who, and exactly when.")] = 1,
    speed: Annotated[
        float, typer.Option(min=0.1, max=SPEED_MAX, help="So many times as fast as written, messages included.")
    ] = 1.0,
    report: Annotated[Path | None, typer.Option(help="Write a report there, one HTML file.")] = None,
    wait: Annotated[str, typer.Option(help="How long to wait at the end for what is still on its way.")] = "120s",
    devices: Annotated[
        Path | None, typer.Option(help="CSV or JSON list of devices with credentials; default: made on the demo.")
    ] = None,
    network: Annotated[str | None, typer.Option(help="Network of devices that are not in a list.")] = None,
    network_password: Annotated[
        str | None,
        typer.Option(help="Network's credential, for devices that are in no list.", envvar="TIDEGATE_NETWORK_PASSWORD"),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Gateway's address; default: the demo's.")] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=PORT_MAX, help="Gateway's port, for devices that name none.")
    ] = None,
    gateway: Annotated[
        list[str] | None, typer.Option(help="Address of a gateway's status API; may be given more than once.")
    ] = None,
    control_port: Annotated[
        int | None, typer.Option(min=1, max=PORT_MAX, help="Control port of the proxy that the gateway's link goes by.")
    ] = None,
    api: Annotated[str | None, typer.Option(help="Cloud's address, http://host:port; default: the demo's.")] = None,
    user: Annotated[str | None, typer.Option(help="Who signs in.")] = None,
    password: Annotated[str | None, typer.Option(help="Password.", envvar="TIDEGATE_PASSWORD")] = None,
    token: Annotated[str | None, typer.Option(help="A session's token instead.", envvar="TIDEGATE_TOKEN")] = None,
    project: Annotated[str | None, typer.Option(help="Project of the devices.")] = None,
    ledger: Annotated[Path | None, typer.Option(help="Folder of the ledger; default: beside the demo's.")] = None,
    each: Annotated[bool, typer.Option("--each", help="One line a device at the end, not one a network.")] = False,
    as_json: AsJson = False,
    run_folder: RunFolder = DEFAULT_RUN_FOLDER,
) -> None:
    """Play what goes wrong on a site, as a timeline, against a running gateway; then prove that nothing was lost.

    Exit codes as of verify: 0 proven, 3 not yet, 1 it does not hold.
    """
    if listed or name is None:
        _list(as_json)
        return
    file = find(name)
    played = read(file)
    if api is None and read_state(run_folder) is None:
        raise no_demo(run_folder)
    demo = running_state(run_folder) if api is None else DemoState()
    book = ledger or run_folder / FOLDER / "ledger"
    plan = RunPlan(
        file.stem,
        played,
        (),
        DeviceSettings(host=host or demo.mqtt_host, port=port or 0, buffer_messages=played.fleet.buffer),
        book,
        VerifyPlan(
            book,
            tuple(gateway or ([demo.status] if demo.status else [])),
            project or demo.project,
            duration_s(wait),
            (Path(demo.ledger),) if demo.ledger else (),
        ),
        control_port or demo.control_port,
        run_folder if api is None else None,
        seed,
        speed,
    )
    unlisted = RosterDevice("", password=network_password or "", network=network or demo.network)
    stage = Stage(
        plan,
        demo,
        CloudAccess(api or demo.api, user or demo.user, password or demo.password, token or ""),
        None if devices is None else read_roster(devices),
        unlisted,
    )
    if not as_json:
        typer.echo(f"{plan.name}: {played.title}")
        for words in left_out(plan):
            typer.echo(f"✗ {words}")
    done = _run(stage, quiet=as_json)
    if done is None:
        typer.echo(f"stopped; what was sent can be proven by: tidegate-sim verify --ledger {book}", err=True)
        raise typer.Exit(EXIT_INTERRUPTED)
    if report is not None:
        report.write_text(page(done, file.read_text()))
    if as_json:
        _print_json(done)
    else:
        _print(done, each, report)
    raise typer.Exit(EXIT_CODES[done.proof.verdict])


class CloudAccess(msgspec.Struct, frozen=True):
    base: str
    user: str
    password: str
    token: str


class Stage(msgspec.Struct, frozen=True):
    """Where a scenario is played, and who plays."""

    plan: RunPlan
    """Without its devices."""
    demo: DemoState
    access: CloudAccess
    listed: list[RosterDevice] | None
    unlisted: RosterDevice
    """What a device is like that is in no list; without a password there is none."""


def left_out(plan: RunPlan) -> list[str]:
    """What of the scenario cannot be played there, in words."""
    found = []
    if not plan.control_port and any(isinstance(event, LinkEvent) for event in plan.scenario.event):
        found.append(f"the link's faults are left out: {NO_PROXY}")
    if plan.run_folder is None and any(isinstance(event, PartEvent) for event in plan.scenario.event):
        found.append(f"what befalls gateway and cloud is left out: {NO_PROCESSES}")
    return found


def _run(stage: Stage, *, quiet: bool) -> Run | None:
    """None if somebody stopped it."""
    found: list[Run | None] = []

    async def main(stop: asyncio.Event) -> None:
        access = stage.access
        async with httpx.AsyncClient(trust_env=False) as client:
            cloud = CloudApi(access.base, client, user=access.user, password=access.password, token=access.token)
            try:
                chosen = await _devices(stage, cloud, client)
                devices = tuple(placed(chosen, stage.demo, stage.plan.settings.port or None))
                plan = msgspec.structs.replace(stage.plan, devices=devices)
                with contextlib.nullcontext() if quiet else live({}) as shown:
                    found.append(await Runner(plan, cloud, client, tell=lambda scene: _tell(shown, scene)).run(stop))
            except ApiError as error:
                raise UserError(f"the API refused: {error}", "user and password: --user, --password") from None
            except UnreachableError as error:
                raise UserError(f"no answer: {error}", "is the cloud running? a longer --wait") from None

    run_loop(main)
    return found[0]


async def _devices(stage: Stage, cloud: CloudApi, client: httpx.AsyncClient) -> list[RosterDevice]:
    table = stage.plan.scenario.fleet
    if stage.listed is None and stage.plan.run_folder is not None and not stage.unlisted.password:
        file = stage.plan.run_folder / FOLDER / "devices.json"
        return await enlist(stage.demo, cloud, client, file, table.devices, table.profile, table.protocols)
    return choose_devices(stage.listed or [], None if stage.listed else table.devices, stage.unlisted)


def _tell(shown: Live | None, scene: Scene) -> None:
    if shown is not None:
        shown.show([], scene_line(scene, line_width()))


def scene_line(scene: Scene, width: int) -> str:
    """What happens now and what comes next, in `width` columns."""
    if scene.verifying is not None:
        return fitting(width, f"the ledger · {scene.verifying.line()}")
    clock = f"{_clock(scene.passed_s)} of {_clock(scene.timeline_s)}"
    figures = "" if scene.sample is None else f" · {_figures(scene.sample)}"
    if scene.passed_s > scene.timeline_s:
        return fitting(width, f"{clock} · the devices' last acknowledgements{figures}", f"{clock}{figures}")
    now = f"{clock} · {scene.now or 'all well'}"
    following = f" · {scene.next}" if scene.next else ""
    return fitting(width, f"{now}{following}{figures}", f"{now}{following}", now)


def _figures(sample: Sample) -> str:
    pending = "gateway does not answer" if sample.pending is None else f"pending {sample.pending:,}"
    return f"acknowledged {sample.acknowledged:,} of {sample.made:,} · {pending} · link {sample.link or 'unknown'}"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _list(as_json: bool) -> None:
    rows = [
        {"name": file.stem, "lasts": _clock(played.duration), "devices": played.fleet.devices, "title": played.title}
        for file, played in ((file, read(file)) for file in shipped())
    ]
    show(rows, columns={"name": "name", "lasts": "lasts", "devices": "devices", "title": ""}, as_json=as_json)


def _print(done: Run, each: bool, report: Path | None) -> None:
    rows = [
        {
            "at": _clock(happening.at_s),
            "what": happening.what,
            "lasts": f"{happening.until_s - happening.at_s:.1f} s" if happening.until_s > happening.at_s else "",
            "note": f"left out: {happening.left_out}" if happening.left_out else happening.note,
        }
        for happening in done.happened
    ]
    show(rows, columns={"at": "at", "what": "what happened", "lasts": "lasted", "note": ""}, as_json=False)
    fleet = done.fleet
    typer.echo(
        f"\n{fleet.made:,} made, {fleet.acknowledged:,} acknowledged, {fleet.resent:,} sent again "
        f"({fleet.repeated:,} without need), {fleet.malformed:,} malformed, {fleet.dropped:,} dropped by devices\n"
    )
    print_proof(done.proof, each)
    if report is not None:
        typer.echo(f"report: {report}")


def _print_json(done: Run) -> None:
    fields = {name: getattr(done, name) for name in done.__struct_fields__ if name != "samples"}
    print_json({"verdict": done.proof.verdict, "holds": done.proof.holds, **fields})
