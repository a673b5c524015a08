"""How an embedded engine is reached: its port and the credentials we gave it, kept in a file that only we may read."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from cloud.engines.settings import HOST, PORTS_TRIED_MAX
from tidegate.console import UserError

USER: Final = "tidegate"
PASSWORD_BYTES: Final = 24
"""192 random bits; URL-safe, so that it stands in URLs and configuration files as it is."""


class Access(msgspec.Struct, frozen=True):
    configured_port: int
    """What the settings said when `port` was chosen; once they say something else, a new one is chosen."""
    port: int
    password: str

    @classmethod
    def load(cls, path: Path) -> Access | None:
        """None where there is none yet. Raises UserError if the file is damaged."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise UserError(
                f"{path} is damaged: {error}", "restore it, with the data beside it, from a backup"
            ) from None

    def store(self, path: Path) -> None:
        write_private(path, msgspec.json.format(msgspec.json.encode(self)))


def with_free_port(kept: Access | None, configured_port: int) -> Access:
    """Access with a port that nothing listens on: the kept one if the settings are as they were, else the configured
    one, or the next above it. Raises UserError if there is none."""
    if kept is not None and kept.configured_port == configured_port and is_free(kept.port):
        return kept
    password = secrets.token_urlsafe(PASSWORD_BYTES) if kept is None else kept.password
    return Access(configured_port, free_port(configured_port, is_free), password)


def free_port(first: int, is_free: Callable[[int], bool]) -> int:
    last = min(first + PORTS_TRIED_MAX, 65_536) - 1
    for port in range(first, last + 1):
        if is_free(port):
            return port
    raise UserError(f"the ports {first} to {last} of {HOST} are all taken", "set another port")


def is_free(port: int) -> bool:
    """True if a server may listen on it now. Connections that linger from an earlier one do not count, as with
    servers."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def write_private(path: Path, data: bytes, owner: tuple[int, int] | None = None) -> None:
    """Replaces the file at once and durably, mode 0600. The directory may belong to `owner`, whom we do not trust: a
    link laid in our way is replaced, never followed."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        if owner is not None:
            os.fchown(descriptor, *owner)
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    new.rename(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
