"""`tidegate-sim unplug`: cuts the demo's link for a while."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Annotated, Final

import httpx
import typer

from firmware_sim.cli.options import DEFAULT_RUN_FOLDER, RunFolder, duration_s
from firmware_sim.cloud_api import GatewayAccounting, UnreachableError, gateway_accounting
from firmware_sim.faults.control import ControlError, command
from firmware_sim.faults.fault import Direction, Fault, Kind, ProxyState
from firmware_sim.run_folder import DemoState, running_state
from firmware_sim.status_line import fitting, line_width
from tidegate.console import Live, UserError, live

LOOK_S: Final = 0.5
DRAIN_MAX_S: Final = 600.0
"""After that the countdown has nothing more to tell; the backlog goes on draining without it."""
KINDS: Final = {"cut": Kind.CUT, "black-hole": Kind.BLACK_HOLE, "stall": Kind.STALL}


def unplug(
    duration: Annotated[str, typer.Argument(help="How long: 60s, 5m.")] = "60s",
    kind: Annotated[str, typer.Option(help="How it fails: " + ", ".join(KINDS) + ".")] = "cut",
    direction: Annotated[Direction, typer.Option(help="Which way is affected.")] = Direction.BOTH,
    replace: Annotated[bool, typer.Option("--replace", help="Also if it is unplugged already.")] = False,
    run_folder: RunFolder = DEFAULT_RUN_FOLDER,
) -> None:
    """Pull the plug of the demo's link, watch the backlog grow, plug it in again, watch it drain."""
    demo = running_state(run_folder)
    seconds = duration_s(duration)
    if kind not in KINDS:
        raise UserError(f"no fault {kind!r}", f"one of {', '.join(KINDS)}")
    # With its end from the beginning: a command that is killed leaves nothing unplugged for ever.
    fault = Fault(KINDS[kind], direction, seconds=seconds, by=f"tidegate-sim unplug, process {os.getpid()}")
    asyncio.run(_unplug(demo, fault, seconds, replace))


async def _unplug(demo: DemoState, fault: Fault, seconds: float, replace: bool) -> None:
    async with httpx.AsyncClient() as client:
        with live({}) as shown:
            before = await _look(demo, client)
            usual = before.totals.pending if before else 0
            state = await _command(demo, fault, replace=replace)
            if state.by != fault.by:
                raise taken(state)
            try:
                await _count_down(demo, client, shown, seconds)
            finally:
                # Also after Ctrl-C: nobody wants a demo that stays unplugged. But what --replace put there is not ours.
                await _command(demo, Fault(by=fault.by), replace=False)
            await _watch_drain(demo, client, shown, usual)


def taken(state: ProxyState) -> UserError:
    """What the second of two is told."""
    what = "the link is cut" if state.fault is Kind.CUT else f"the link has a {state.fault.replace('_', ' ')}"
    how_long = "" if state.remaining_s is None else f" for another {state.remaining_s:.0f} s"
    who = f", by {state.by}" if state.by else ""
    return UserError(f"{what}{how_long} already{who}", "wait for its end; or --replace, to go ahead")


async def _count_down(demo: DemoState, client: httpx.AsyncClient, shown: Live, seconds: float) -> None:
    end_s = time.monotonic() + seconds
    while (left_s := end_s - time.monotonic()) > 0:
        _show(shown, f"unplugged · {left_s:3.0f} s left", await _look(demo, client))
        await asyncio.sleep(min(LOOK_S, max(left_s, 0.0)))


async def _watch_drain(demo: DemoState, client: httpx.AsyncClient, shown: Live, usual: int) -> None:
    """Until no more waits than before, give or take what devices send within a look."""
    began_s = time.monotonic()
    peak = 0
    while (passed_s := time.monotonic() - began_s) < DRAIN_MAX_S:
        now = await _look(demo, client)
        pending = now.totals.pending if now else None
        if now is not None and pending is not None:
            peak = max(peak, pending)
            if pending <= max(usual, len(demo.devices)) and now.link.state == "up":
                _show(shown, f"plugged in · drained {peak:,} in {passed_s:.0f} s", now)
                return
        _show(shown, f"plugged in · {passed_s:3.0f} s", now)
        await asyncio.sleep(LOOK_S)
    raise UserError(f"the backlog has not drained within {DRAIN_MAX_S:g} s", f"the gateway's page: {demo.status}")


async def _look(demo: DemoState, client: httpx.AsyncClient) -> GatewayAccounting | None:
    try:
        return await gateway_accounting(demo.status, client)
    except UnreachableError:
        return None


async def _command(demo: DemoState, fault: Fault, *, replace: bool) -> ProxyState:
    try:
        return await command(demo.control_port, fault, replace=replace)
    except ControlError as error:
        raise UserError(str(error), "is the demo still running? make run") from None


def _show(shown: Live, what: str, accounting: GatewayAccounting | None) -> None:
    shown.show([], progress_line(what, accounting, line_width()))


def progress_line(what: str, accounting: GatewayAccounting | None, width: int) -> str:
    """As much as `width` columns hold."""
    if accounting is None:
        return fitting(width, f"{what} · the gateway does not answer")
    link = accounting.link
    drain = f" · drained in about {link.drain_s:.0f} s" if link.state == "up" and link.drain_s else ""
    brief = f"{what} · {accounting.line(brief=True)}{drain}"
    least = f"{what} · pending {accounting.totals.pending:,} · link {link.state}"
    return fitting(width, f"{what} · {accounting.line()}{drain}", brief, least + drain, least)
