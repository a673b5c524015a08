"""The demo's folder: what `make run` leaves there for scripts and for the other commands.

demo.json    addresses, credentials, process ids (DemoState); only its owner may read it
auth         a header line for `curl -H @.run/auth`, kept fresh while the demo runs
demo.pid     held while the demo runs
fleet.json   what the fleet did, each second (FleetState)
ledger/      what the devices sent (ledger.py)
serial/      ends of serial lines, while the demo runs
logs/        one file a process
cloud/ gateway/ and their *.toml
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from firmware_sim.devices.roster import Protocol, RosterDevice
from tidegate.console import UserError

RUN_FOLDER: Final = Path(".run")
"""Below the folder that a command is started in, which is the clone's."""
_OWNER_ONLY: Final = 0o600


class Bench(msgspec.Struct):
    """A device that nothing simulates, for a person or a script to send as."""

    device: RosterDevice
    """With the credential and the place of its listener, as far as its protocol has them."""
    line: str = ""
    """Serial: the end to write to; the gateway has the other one open, the device's `path`."""
    command: str = ""
    """Sends one value, from a shell in the folder that the demo was started in."""


class DemoState(msgspec.Struct):
    """Everything that a script needs to talk to a running demo."""

    project: str = "demo"
    api: str = ""
    """Base address of the cloud: http://host:port."""
    user: str = "admin"
    password: str = ""
    gateway: str = "quay-1"
    status: str = ""
    """Base address of the gateway's status page and API."""
    mqtt_host: str = "127.0.0.1"
    mqtt_port: int = 0
    network: str = "demo"
    alias_key: str = "serial"
    network_password: str = ""
    """The network's credential, which lets in devices that nobody has created yet."""
    proxy_port: int = 0
    """Where the gateway's link enters the link proxy."""
    control_port: int = 0
    """The proxy's control port (faults/control.py)."""
    ledger: str = ""
    devices: list[RosterDevice] = []
    """The simulated ones, with their credentials."""
    benches: dict[Protocol, Bench] = {}
    pids: dict[str, int] = {}
    """By part: demo, cloud, gateway, devices; empty when nothing runs."""


def read_state(folder: Path) -> DemoState | None:
    """None where no demo was ever set up. Raises UserError for a file that is damaged."""
    path = folder / "demo.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=DemoState)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise UserError(f"{path} is damaged: {error}", "make reset, then make run") from None


def running_state(folder: Path) -> DemoState:
    """Of a demo that runs. Raises UserError where none does."""
    state = read_state(folder)
    if state is None:
        raise no_demo(folder)
    if not state.pids:
        raise UserError(f"no demo runs in {_typed(folder)}", "make run, in another terminal")
    return state


def no_demo(folder: Path) -> UserError:
    """What a command says that was started where no demo ever was."""
    return UserError(f"no demo in {_typed(folder)}", "cd to the clone (make run starts a demo there), or --run DIR")


def _typed(folder: Path) -> str:
    return str(folder) if folder.is_absolute() else f"./{folder}"


def write_state(folder: Path, state: DemoState) -> None:
    data = msgspec.json.format(msgspec.json.encode(state), indent=2)
    write_private(folder / "demo.json", data + b"\n")


def write_private(path: Path, data: bytes) -> None:
    """The whole new content or the old one, and never readable for others, not even for a moment."""
    aside = path.with_name(path.name + ".new")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _OWNER_ONLY)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    aside.replace(path)
