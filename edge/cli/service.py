"""`tidegate-edge service`: the gateway as a service of systemd."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from edge.cli.options import AsJson, load_config

app = typer.Typer(help="The gateway as a service of systemd.", no_args_is_help=True)

USER: Final = "tidegate"
CONFIG_FILE: Final = Path("/etc/tidegate/edge.toml")
COLUMNS: Final = {"what": "what", "state": "state"}

_USER_NAME: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_SHOWN: Final = {
    "LoadState": "unit",
    "ActiveState": "state",
    "SubState": "phase",
    "StatusText": "says",
    "MainPID": "process",
    "NRestarts": "restarts",
    "ActiveEnterTimestamp": "since",
    "Result": "result",
}
"""Properties of the unit (systemctl show), and what they are called here."""

InstalledConfig = Annotated[Path, typer.Option("--config", "-c", help="TOML file of the gateway.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]


@app.callback()
def _root() -> None:
    """The gateway as a service of systemd."""


@app.command()
def install(
    config_file: InstalledConfig = CONFIG_FILE,
    user: Annotated[str, typer.Option("--user", help="User that it runs as; made if there is none.")] = USER,
    dry_run: DryRun = False,
) -> None:
    """Write its unit, with a watchdog and no more rights than the configuration asks for; enable and start it."""
    from edge.service.install import carry_out, install_plan, run_command
    from edge.service.unit import NAME, Service
    from tidegate.console import UserError

    if not _USER_NAME.fullmatch(user):
        raise UserError(f"{user!r} is no name for a user", "lower-case letters, digits, _ and -")
    config_file = config_file.absolute()
    if any(character.isspace() for character in str(config_file)):
        raise UserError(f"{config_file}: a unit's command takes no path with spaces", "move it")
    program = Path(sys.argv[0]).absolute()
    plan = install_plan(Service(program, config_file, load_config(config_file, None), user))
    if dry_run:
        print("\n".join(plan.lines()))
        return
    carry_out(plan, run_command)
    print(f"{NAME} runs, and will after each start of the machine\n  look at it: tidegate-edge service status")


@app.command()
def uninstall(dry_run: DryRun = False) -> None:
    """Stop it and remove its unit. Data folder, configuration and user stay."""
    from edge.service.install import carry_out, run_command, uninstall_plan
    from edge.service.unit import NAME

    plan = uninstall_plan()
    if dry_run:
        print("\n".join(plan.lines()))
        return
    carry_out(plan, run_command)
    print(f"{NAME} is gone; the data folder, the configuration and the user are still there")


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show what systemd says of it."""
    from edge.service.install import run_command
    from edge.service.unit import NAME
    from tidegate.console import show

    names = ",".join(_SHOWN)
    rows = shown(run_command(["systemctl", "show", NAME, f"--property={names}"]))
    show(rows, columns=COLUMNS, as_json=as_json)
    if not any(row == {"what": "state", "state": "active"} for row in rows):
        raise typer.Exit(1)


def shown(properties: str) -> list[dict[str, str]]:
    """`properties`: Name=value lines."""
    values = dict(line.split("=", 1) for line in properties.splitlines() if "=" in line)
    return [{"what": word, "state": values[name]} for name, word in _SHOWN.items() if values.get(name)]
