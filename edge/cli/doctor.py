"""`tidegate-edge doctor`: what is wrong here, and how to mend it."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.options import AsJson, ConfigFile, DataDir, load_config, start_command

if TYPE_CHECKING:
    from edge.doctor.finding import Finding, Site
    from edge.status.rejects import Rejections


def doctor(
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="Write a support archive (tar.gz) to this file.", metavar="FILE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look at clock, disk, ports, TLS, cloud and the running gateway; say what is wrong and what to do.

    Changes nothing. Exit code 1 where something failed."""
    from edge.doctor.examination import examine
    from edge.doctor.finding import State
    from tidegate.console import print_json

    site, rejections = _site(config_file, data_dir)
    findings: list[Finding] = []
    for finding in examine(site):
        findings.append(finding)
        if not as_json:
            print(line(finding), flush=True)
    counts = {state: sum(finding.state is state for finding in findings) for state in State}
    if as_json:
        print_json({"findings": findings, "counts": counts})
    else:
        print(", ".join(f"{count} {state}" for state, count in counts.items()))
    if bundle is not None:
        _bundle(bundle, site, findings, rejections)
    if counts[State.FAILED]:
        raise typer.Exit(1)


def line(finding: Finding) -> str:
    """For people."""
    text = f"{finding.state:8} {finding.check}: {finding.seen}"
    return f"{text}\n{'':8}   try: {finding.remedy}" if finding.remedy else text


def _site(config_file: Path | None, data_dir: Path | None) -> tuple[Site, Rejections | None]:
    """What is to be looked at; and what the running gateway turned away last. Raises ConfigError."""
    from edge.cli.gateway import RunningGateway
    from edge.data_folder import running
    from edge.doctor.finding import Site
    from edge.status.accounting import Accounting
    from edge.status.rejects import Rejections
    from tidegate.console import UserError

    config = load_config(config_file, data_dir)
    found = accounting = rejections = None
    # None runs, it does not answer, or the folder cannot be looked into: the checks say which.
    with contextlib.suppress(UserError):
        found = running(config.data_dir)
        gateway = RunningGateway(config_file, data_dir)
        accounting, rejections = gateway.get("/accounting", Accounting), gateway.get("/rejects", Rejections)
    start = start_command(config_file, data_dir)
    enroll = start.replace(" run", " enroll https://CLOUD --token TOKEN", 1)
    return Site(config, found, accounting, enroll, start), rejections


def _bundle(file: Path, site: Site, findings: list[Finding], rejections: Rejections | None) -> None:
    from edge.doctor.bundle import CONTENTS, contents, write

    parts = contents(site, findings, rejections)
    write(file, parts, int(time.time()))
    print(f"{file} holds", file=sys.stderr)
    for name, data in parts.items():
        print(f"  {name:16} {len(data):>8,} bytes  {CONTENTS[name]}", file=sys.stderr)
    print("  and neither keys, passwords nor payloads", file=sys.stderr)
