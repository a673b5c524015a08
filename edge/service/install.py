"""Makes the gateway a service of systemd, or no longer one: a file and some commands, which can be shown beforehand."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from edge.service.unit import NAME, Service, state_directory, text
from tidegate.console import UserError

FOLDER: Final = Path("/etc/systemd/system")
COMMAND_S: Final = 120.0
"""Starting waits until devices are served."""

Run = Callable[[Sequence[str]], str]


class Plan(msgspec.Struct, frozen=True):
    """What is to be done, in this order: the file, the commands."""

    file: Path
    text: str
    """Empty: the file goes, after the first command."""
    commands: list[list[str]]

    def lines(self) -> list[str]:
        """For people."""
        head = [f"# {self.file}", *self.text.splitlines(), ""] if self.text else []
        return head + [shlex.join(command) for command in self.commands]


def install_plan(service: Service) -> Plan:
    """Raises UserError where the service could not read what it needs."""
    _check(service)
    user, data = service.user, service.config.data_dir.absolute()
    commands = []
    if not _exists(user):
        shell = "/usr/sbin/nologin"
        commands.append(["useradd", "--system", "--user-group", "--no-create-home", "--shell", shell, user])
    if not state_directory(service.config):
        commands.append(["install", "-d", "-m", "700", "-o", user, "-g", user, str(data)])
    if data.is_dir():  # enrolled by root, or run by somebody else before
        commands.append(["chown", "-R", f"{user}:{user}", str(data)])
    commands += [["systemctl", "daemon-reload"], ["systemctl", "enable", NAME], ["systemctl", "restart", NAME]]
    return Plan(FOLDER / NAME, text(service), commands)


def uninstall_plan() -> Plan:
    """The data folder and the user stay."""
    file = FOLDER / NAME
    commands = [["systemctl", "disable", "--now", NAME], ["rm", str(file)], ["systemctl", "daemon-reload"]]
    return Plan(file, "", commands)


def carry_out(plan: Plan, run: Run) -> None:
    """Raises UserError."""
    if plan.text:
        try:
            plan.file.write_text(plan.text)
            plan.file.chmod(0o644)
        except OSError as error:
            raise UserError(f"cannot write {plan.file}: {error.strerror}", _AS_ROOT) from None
    elif not plan.file.exists():
        raise UserError(f"there is no {plan.file}", "it is not installed as a service")
    for command in plan.commands:
        run(command)


def run_command(command: Sequence[str]) -> str:
    """What it printed. Raises UserError."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    except FileNotFoundError:
        raise UserError(f"{command[0]} is not there", "this needs a system that runs systemd") from None
    except subprocess.TimeoutExpired:
        remedy = f"journalctl -u {NAME} says what it waits for"
        raise UserError(f"{shlex.join(command)} is not done after {COMMAND_S:g} s", remedy) from None
    if done.returncode:
        reason = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
        remedy = _AS_ROOT if os.geteuid() else f"journalctl -u {NAME} may say more"
        raise UserError(f"{shlex.join(command)}: {reason}", remedy)
    return done.stdout


def _check(service: Service) -> None:
    for path in (service.program, service.config_file):
        if not path.is_file():
            raise UserError(f"{path} is not there", "give the configuration by --config FILE")
        if (place := _closed_to(service.user, path)) is not None:
            raise UserError(
                f"user {service.user} may not read {path}: {place} is closed to others",
                f"move it to a folder that is not, or: chmod o+rX {place}",
            )


def _closed_to(user: str, path: Path) -> Path | None:
    """The file, or a folder on the way to it, that the user may not read; None: there is none."""
    ids = _ids(user)
    for place in (path, *path.parents):
        found = place.stat()
        needed = stat.S_IROTH if place == path else stat.S_IXOTH
        if ids is not None and found.st_uid == ids[0]:
            needed <<= 6
        elif ids is not None and found.st_gid in ids[1]:
            needed <<= 3
        if not found.st_mode & needed:
            return place
    return None


def _ids(user: str) -> tuple[int, set[int]] | None:
    """Number of the user, and of its groups; None: it is yet to be made."""
    if not _exists(user):
        return None
    entry = pwd.getpwnam(user)
    return entry.pw_uid, {entry.pw_gid} | {group.gr_gid for group in grp.getgrall() if user in group.gr_mem}


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


_AS_ROOT: Final = "run it as root: sudo …"
