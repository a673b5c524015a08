"""Which user an engine runs as, and where that user finds the engine's files.

Started by anyone but root, an engine runs as its starter. Started by root, it runs as somebody without rights, since
PostgreSQL refuses root and NATS has no use for it; that user owns the engine's data directory and nothing else.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from cloud.engines import drop
from tidegate.console import UserError

ACCOUNT_NAMES: Final = ("tidegate", "nobody")
"""Whom root's engines run as: an account that was made for them, else the one that every system has. A number without
an entry in the password file will not do: initdb asks for its name."""

STAGES: Final = ("/media", "/mnt", "/srv")
"""Directories every Linux has and no engine needs; in an engine's own mount namespace one of them holds its files."""

REMEDY: Final = (
    "run as a normal user; or set data_dir to a directory below ones that everybody may enter, with Tidegate "
    "installed in such a place too; or set database.url and nats.url to engines of your own"
)


class Account(msgspec.Struct, frozen=True):
    uid: int
    gid: int


class Place(msgspec.Struct, frozen=True):
    """A directory or file that the engine needs. The name says where it stands relative to the others."""

    path: Path
    name: str


class Confinement:
    """How to run programs for one data directory. All paths are absolute."""

    def __init__(self, account: Account | None, data: Path, installed: Sequence[Place], *, stage: str | None) -> None:
        self.account = account
        self._stage = stage
        self._places = [Place(data, "data"), *installed]
        self._inside = {place.name: place.path if stage is None else Path(stage, place.name) for place in self._places}

    @classmethod
    def of(cls, account: Account | None, data: Path, installed: Sequence[Place]) -> Confinement:
        """The way that fits: staged if `account` could not reach a path as it is."""
        places = [data, *(place.path for place in installed)]
        hidden = account is not None and not all(can_enter(account, path) for path in places)
        return cls(account, data, installed, stage=next(filter(os.path.isdir, STAGES)) if hidden else None)

    @property
    def staged(self) -> bool:
        return self._stage is not None

    def inside(self, name: str) -> Path:
        """Where the program sees the place; "data" is the data directory."""
        return self._inside[name]

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that ends up as `argv` (paths as seen inside) in the data directory."""
        request = {
            "argv": list(argv),
            "directory": str(self.inside("data")),
            "account": None if self.account is None else [self.account.uid, self.account.gid],
            "stage": self._stage,
            "binds": [[str(place.path), place.name] for place in self._places],
        }
        return [sys.executable, "-I", "-S", drop.__file__, msgspec.json.encode(request).decode()]

    def environment(self) -> Mapping[str, str]:
        """Nothing of ours: variables such as PGOPTIONS, LD_PRELOAD or GOGC would change what an engine does."""
        return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def account_for(data: Path) -> Account | None:
    """Who shall run the engine whose data directory is, or will be, `data`; None: whoever we are.

    A directory that exists keeps its owner, so that changing between root and that user works. Raises UserError if it
    belongs to somebody that we cannot become.
    """
    try:
        owner = data.stat()
    except FileNotFoundError:
        owner = None
    if os.geteuid() != 0:
        if owner is not None and owner.st_uid != os.geteuid():
            raise UserError(
                f"{data} belongs to another user (uid {owner.st_uid})",
                "start as the user who started it first, or as root; or choose another data_dir",
            )
        return None
    if owner is not None and owner.st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    for name in ACCOUNT_NAMES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise UserError("the embedded engines do not run as root, and there is no user 'nobody'", REMEDY)


def can_enter(account: Account, path: Path) -> bool:
    """True if the mode bits let `account` pass every directory above `path`. The path itself is not looked at."""
    return all(_permits(account, parent, stat.S_IXOTH) for parent in path.parents)


def can_read(account: Account, path: Path) -> bool:
    """True if the mode bits let `account` read what an installer put at `path`: it and everything below it."""
    paths = [path, *path.rglob("*")] if path.is_dir() else [path]
    wanted = {True: stat.S_IXOTH | stat.S_IROTH, False: stat.S_IROTH}
    return all(_permits(account, each, wanted[each.is_dir()]) for each in paths)


def _permits(account: Account, path: Path, bits: int) -> bool:
    """`bits` as in the last three of the mode."""
    found = path.stat()
    shift = 6 if found.st_uid == account.uid else 3 if found.st_gid == account.gid else 0
    return (found.st_mode >> shift) & bits == bits


def readable(account: Account | None, installed: Sequence[Place], copies: Path) -> list[Place]:
    """The places as they are, or copied below `copies` (ours, replaced with each release) where an installation made
    with a strict umask keeps the account from reading them."""
    if account is None or all(can_read(account, place.path) for place in installed):
        return list(installed)
    made = copies / f"{max(_made_ns(place.path) for place in installed):x}"
    if not made.is_dir():
        shutil.rmtree(copies, ignore_errors=True)
        half = copies / "half"
        for place in installed:
            _copy_readable(place.path, half / place.name)
        _open_up(copies)
        half.rename(made)
    return [Place(made / place.name, place.name) for place in installed]


def _made_ns(path: Path) -> int:
    return path.stat().st_mtime_ns


def _copy_readable(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target)


def _open_up(top: Path) -> None:
    for path in (top, *top.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)


def hand_over(data: Path, account: Account | None) -> None:
    """Makes `data` and everything in it the account's, if a copy or a restore by root left it with root."""
    if account is None or data.stat().st_uid == account.uid:
        return
    for directory, _, files in os.walk(data, topdown=False):
        for name in (*files, "."):
            os.lchown(os.path.join(directory, name), account.uid, account.gid)
