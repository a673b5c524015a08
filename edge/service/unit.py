"""The unit of the gateway (systemd.service(5), systemd.exec(5)): no more rights than its configuration asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from edge.app import FILES_MAX
from edge.config import EdgeConfig

NAME: Final = "tidegate-edge.service"

WATCHDOG_S: Final = 60
"""Without a sign of life for so long it is started anew: a disk that hangs for a minute is not worth less patience."""

START_S: Final = 300
"""A log of many segments on a slow disk is looked through at the start after a power cut."""

STOP_S: Final = 60
"""Devices are answered, and the cloud is told goodbye; each has a limit of its own below this."""

_STATE_ROOT: Final = Path("/var/lib")
_HOMES: Final = (Path("/home"), Path("/root"), Path("/run/user"))
_PRIVILEGED_BELOW: Final = 1024

_SERIAL_DEVICES: Final = ("char-ttyUSB", "char-ttyACM", "char-ttyS", "char-ttyAMA", "char-rfcomm")


class Service(msgspec.Struct, frozen=True):
    """What the unit is made from."""

    program: Path
    """`tidegate-edge`, with its folder."""
    config_file: Path
    config: EdgeConfig
    user: str


def text(service: Service) -> str:
    config = service.config
    lines = [
        "[Unit]",
        "Description=Tidegate gateway",
        "After=network.target time-sync.target",
        "# However often it fails, devices wait for it.",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=notify",
        "NotifyAccess=main",
        f"ExecStart={service.program} run --config {service.config_file}",
        "ExecReload=/bin/kill -HUP $MAINPID",
        f"WatchdogSec={WATCHDOG_S}",
        f"TimeoutStartSec={START_S}",
        f"TimeoutStopSec={STOP_S}",
        "Restart=always",
        "RestartSec=2",
        f"LimitNOFILE={FILES_MAX + sum(listener.files_max for _, listener in config.listeners)}",
        f"User={service.user}",
        f"Group={service.user}",
        "UMask=0077",
        *_folders(service),
        *_devices(config),
        *_capabilities(config),
        *_HARDENING,
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def has_serial_ports(config: EdgeConfig) -> bool:
    return any(listener.needs.serial_ports for _, listener in config.listeners)


def state_directory(config: EdgeConfig) -> str:
    """The data folder's name where systemd may make it and give it to the user; else empty."""
    folder = config.data_dir.absolute()
    return str(folder.relative_to(_STATE_ROOT)) if folder.is_relative_to(_STATE_ROOT) and folder != _STATE_ROOT else ""


def _folders(service: Service) -> list[str]:
    """Everything is read-only but the data folder, those of listeners, and where the bus's socket is wanted."""
    config = service.config
    lines = ["ProtectSystem=strict"]
    if name := state_directory(config):
        lines += [f"StateDirectory={name}", "StateDirectoryMode=0700"]
    else:
        lines.append(f"ReadWritePaths={config.data_dir.absolute()}")
    if config.bus.endpoint.startswith("ipc://"):
        lines.append(f"ReadWritePaths={Path(config.bus.endpoint.removeprefix('ipc://')).parent}")
    kept = {folder: None for _, listener in config.listeners for folder in listener.needs.folders}
    lines += [f"ReadWritePaths={Path(folder).absolute()}" for folder in kept]
    used = (config.data_dir.absolute(), service.program, service.config_file)
    at_home = any(path.is_relative_to(home) for path in used for home in _HOMES)
    lines.append(f"ProtectHome={'read-only' if at_home else 'yes'}")
    return lines


def _devices(config: EdgeConfig) -> list[str]:
    if not has_serial_ports(config):
        return ["PrivateDevices=yes"]
    return [
        "SupplementaryGroups=dialout",
        "DevicePolicy=closed",
        *(f"DeviceAllow={device} rw" for device in _SERIAL_DEVICES),
    ]


def _capabilities(config: EdgeConfig) -> list[str]:
    ports = [socket.port for _, listener in config.listeners for socket in listener.needs.sockets]
    ports.append(config.status.port)
    wanted = "CAP_NET_BIND_SERVICE" if any(0 < port < _PRIVILEGED_BELOW for port in ports) else ""
    return [f"AmbientCapabilities={wanted}", f"CapabilityBoundingSet={wanted}"]


_HARDENING: Final = (
    "NoNewPrivileges=yes",
    "PrivateTmp=yes",
    "ProtectControlGroups=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectProc=invisible",
    "RemoveIPC=yes",
    "LockPersonality=yes",
    "MemoryDenyWriteExecute=yes",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged",
    "# They tell whether the clock is synchronized. ProtectClock= would forbid that; without a capability for it,",
    "# nobody can set the clock by them.",
    "SystemCallFilter=adjtimex clock_adjtime",
    "SystemCallErrorNumber=EPERM",
)
