"""`tidegate-sim verify`: the ledger against the public API."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Final

import httpx
import typer

from firmware_sim.cli.options import DEFAULT_RUN_FOLDER, AsJson, RunFolder, duration_s
from firmware_sim.cloud_api import ApiError, CloudApi, UnreachableError
from firmware_sim.run_folder import DemoState, read_state
from firmware_sim.verdict import Verdict, add_up
from firmware_sim.verify import Progress as VerifyProgress
from firmware_sim.verify import Proof, Verification, VerifyPlan, source_name
from tidegate.console import Live, UserError, live, print_json, show

COLUMNS: Final = {
    "network": "network",
    "name": "device",
    "made": "made",
    "sent": "sent",
    "packets": "packets",
    "acknowledged": "acknowledged",
    "stored": "stored",
    "missing": "missing",
    "doubled": "doubled",
    "unacknowledged": "unacknowledged",
    "unsent": "unsent",
    "dropped": "dropped",
}


def verify(
    ledger: Annotated[Path | None, typer.Option(help="Folder of the ledger; default: the demo's.")] = None,
    api: Annotated[str | None, typer.Option(help="Cloud's address, http://host:port; default: the demo's.")] = None,
    user: Annotated[str | None, typer.Option(help="Who signs in.")] = None,
    password: Annotated[str | None, typer.Option(help="Password.", envvar="TIDEGATE_PASSWORD")] = None,
    token: Annotated[str | None, typer.Option(help="A session's token instead.", envvar="TIDEGATE_TOKEN")] = None,
    project: Annotated[str | None, typer.Option(help="Project of the devices.")] = None,
    gateway: Annotated[
        list[str] | None, typer.Option(help="Address of a gateway's status API; may be given more than once.")
    ] = None,
    wait: Annotated[str, typer.Option(help="How long to wait for what is still on its way.")] = "60s",
    each: Annotated[bool, typer.Option("--each", help="One line a device, not one a network.")] = False,
    as_json: AsJson = False,
    run_folder: RunFolder = DEFAULT_RUN_FOLDER,
) -> None:
    """Prove that nothing was lost and nothing doubled.

    Exit code 0: every acknowledged message is stored, none twice, and the accounting is closed.
    """
    demo = read_state(run_folder) or DemoState()
    base = api or demo.api
    if not base:
        raise UserError("no cloud is known", "make run, or name one with --api")
    plan = VerifyPlan(
        ledger or Path(demo.ledger or run_folder / "ledger"),
        tuple(gateway or ([demo.status] if demo.status and not api else [])),
        project or demo.project,
        duration_s(wait),
    )
    proof = asyncio.run(_verify(plan, base, user or demo.user, password or demo.password, token or "", as_json))
    if as_json:
        print_json({"holds": proof.holds, **{name: getattr(proof, name) for name in proof.__struct_fields__}})
    else:
        _print(proof, each)
    raise typer.Exit(0 if proof.holds else 1)


async def _verify(plan: VerifyPlan, base: str, user: str, password: str, token: str, quiet: bool) -> Proof:
    async with httpx.AsyncClient() as client:
        cloud = CloudApi(base, client, user=user, password=password, token=token)
        try:
            if quiet:
                return await Verification(plan, cloud, client, clock=time.monotonic, report=lambda progress: None).run()
            with live({}) as shown:
                return await Verification(
                    plan, cloud, client, clock=time.monotonic, report=lambda progress: _tell(shown, progress)
                ).run()
        except ApiError as error:
            raise UserError(f"the API refused: {error}", "user and password: --user, --password") from None
        except UnreachableError as error:
            raise UserError(f"no answer: {error}", "is the cloud running? a longer --wait") from None


def _tell(shown: Live, progress: VerifyProgress) -> None:
    shown.show([], progress.line())


def _print(proof: Proof, each: bool) -> None:
    rows = list(proof.devices) if each else _by_network(proof.devices)
    show([_row(verdict) for verdict in [*rows, proof.total]], columns=COLUMNS, as_json=False)
    typer.echo()
    for gateway in proof.pipeline.gateways:
        typer.echo(f"gateway  {gateway.line()}")
    for source in proof.pipeline.sources:
        if not source["accepted"] and not source["decoded"]:
            continue  # nothing ever came that way
        typer.echo(
            f"cloud    {source_name(source)}: accepted {source['accepted']:,}, "
            f"stored {source['stored']:,}, repeated {source['repeated']:,}, unresolved {source['unresolved']:,}, "
            f"in pipeline {source['records_in_pipeline'] + source['in_pipeline']:,}"
        )
    for line in faults(proof):
        typer.echo(f"✗ {line}")
    if proof.holds:
        moving = "; a fleet is still sending, its newest messages are not part of this" if proof.fleet_running else ""
        typer.echo(f"✓ nothing missing, nothing doubled, accounting closed{moving}")


def faults(proof: Proof) -> list[str]:
    """Why the proof does not hold, in words."""
    total = proof.total
    found: list[str] = []
    if total.missing:
        found.append(f"{total.missing:,} acknowledged messages are not stored")
    if total.doubled:
        found.append(f"{total.doubled:,} rows too many are stored")
    found += [f"  {fault}" for fault in total.faults]
    found += [f"accounting does not close: {equation}" for equation in proof.open_equations]
    if proof.pipeline.unreachable:
        found.append(f"no answer: {proof.pipeline.unreachable}")
    elif not proof.at_rest and not proof.fleet_running:
        found.append(
            f"still on its way: pending {proof.pipeline.pending:,}, in pipeline {proof.pipeline.in_pipeline:,}"
            " (a longer --wait may be all that it takes)"
        )
    return found


def _by_network(verdicts: tuple[Verdict, ...]) -> list[Verdict]:
    networks: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        networks[verdict.network].append(verdict)
    return [add_up(f"{len(parts)} devices", network, parts) for network, parts in sorted(networks.items())]


def _row(verdict: Verdict) -> dict[str, object]:
    return {key: getattr(verdict, key) for key in COLUMNS}
