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
from firmware_sim.proof_words import accounts, columns_of, conclusion, row_of
from firmware_sim.run_folder import DemoState, no_demo, read_state
from firmware_sim.verdict import Verdict, add_up
from firmware_sim.verify import Outcome, Proof, Verification, VerifyPlan
from firmware_sim.verify import Progress as VerifyProgress
from tidegate.console import Live, UserError, live, print_json, show

EXIT_CODES: Final = {Outcome.HOLDS: 0, Outcome.WAITING: 3, Outcome.LOST: 1}
"""2 is wrong usage."""


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
    margin: Annotated[str, typer.Option(help="How far event times may lie from when devices sent.")] = "1h",
    each: Annotated[bool, typer.Option("--each", help="One line a device, not one a network.")] = False,
    as_json: AsJson = False,
    run_folder: RunFolder = DEFAULT_RUN_FOLDER,
) -> None:
    """Prove that nothing was lost and nothing doubled.

    Exit code 0: every acknowledged message is stored, or in a gap that the gateway told of; none twice; and the
    accounting is closed. 3: not proven yet, what is not stored is on its way. 1: it does not hold.
    """
    found = read_state(run_folder)
    if found is None and api is None:
        raise no_demo(run_folder)
    demo = found or DemoState()
    base = api or demo.api
    if not base:
        raise UserError("no cloud is known", "make run, or name one with --api")
    own = Path(demo.ledger or run_folder / "ledger")
    plan = VerifyPlan(
        ledger or own,
        tuple(gateway or ([demo.status] if demo.status and not api else [])),
        project or demo.project,
        duration_s(wait),
        # The demo's own fleet sends through the same gateway all the time.
        (own,) if found is not None and not api else (),
        margin_ms=int(1000 * duration_s(margin)),
    )
    proof = asyncio.run(_verify(plan, base, user or demo.user, password or demo.password, token or "", as_json))
    if as_json:
        fields = {name: getattr(proof, name) for name in proof.__struct_fields__}
        print_json({"verdict": proof.verdict, "holds": proof.holds, **fields})
    else:
        print_proof(proof, each)
    raise typer.Exit(EXIT_CODES[proof.verdict])


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


def print_proof(proof: Proof, each: bool) -> None:
    rows = list(proof.devices) if each else _by_network(proof.devices)
    columns = columns_of(proof)
    show([row_of(verdict) for verdict in [*rows, proof.total]], columns=columns, as_json=False)
    typer.echo()
    for whose, text in accounts(proof):
        typer.echo(f"{whose:<9}{text}")
    for line in conclusion(proof):
        typer.echo(line)


def _by_network(verdicts: tuple[Verdict, ...]) -> list[Verdict]:
    networks: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        networks[verdict.network].append(verdict)
    return [add_up(f"{len(parts)} devices", network, parts) for network, parts in sorted(networks.items())]
