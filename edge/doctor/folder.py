"""The data folder: there, the gateway's own, and closed to others."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge.doctor.disk import existing
from edge.doctor.finding import Finding, Site, failed, ok, warning
from edge.identity import FACTS_FILE, KEY_FILE

FILES_MAX: Final = 10_000
"""Looked at: more than a log of any size has segments."""


def check(site: Site) -> Iterator[Finding]:
    folder = site.data_dir
    if not folder.exists():
        yield _absent(folder)
        return
    try:
        yield of(folder)
        yield from _secrets(folder)
    except PermissionError as error:
        yield failed(
            "data folder", f"{error.filename}: {error.strerror}", "run doctor as the gateway's user, or as root"
        )


def of(folder: Path) -> Finding:
    if not folder.is_dir():
        return failed("data folder", f"{folder} is not a folder", "set data_dir to a folder")
    found = folder.stat()
    owner = _name(found.st_uid)
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        remedy = f"run as {owner}, or: chown -R USER {folder}"
        return failed("data folder", f"{folder} belongs to {owner}, and this user may not write to it", remedy)
    if stray := _of_another(folder, found.st_uid):
        whose = _name(stray.stat(follow_symlinks=False).st_uid)
        remedy = f"chown -R {owner} {folder}; then always run the gateway as {owner}"
        return failed("data folder", f"{folder} belongs to {owner}, but {stray.name} in it to {whose}", remedy)
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return warning(
            "data folder", f"{folder} is open to other users ({stat.filemode(found.st_mode)})", f"chmod 700 {folder}"
        )
    return ok("data folder", f"{folder}, of {owner}")


def _absent(folder: Path) -> Finding:
    above = existing(folder)
    if os.access(above, os.W_OK | os.X_OK):
        return ok("data folder", f"{folder} is not there yet: enrolment or the first start makes it")
    remedy = f"as root: install -d -m 700 -o USER {folder}"
    return failed("data folder", f"{folder} is not there, and this user may make nothing in {above}", remedy)


def _secrets(folder: Path) -> Iterator[Finding]:
    for name in (KEY_FILE, FACTS_FILE):
        path = folder / name
        if path.exists() and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            mode = stat.filemode(path.stat().st_mode)
            yield failed("data folder", f"{path} is open to other users ({mode})", f"chmod 600 {path}")


def _of_another(folder: Path, owner: int) -> Path | None:
    """A file that does not belong to `owner`: left by a run as another user, it keeps the gateway out."""
    looked_at = 0
    for place in (folder, folder / "log"):
        if not place.is_dir():
            continue
        with os.scandir(place) as entries:
            for entry in entries:
                looked_at += 1
                if entry.stat(follow_symlinks=False).st_uid != owner:
                    return Path(entry.path)
                if looked_at >= FILES_MAX:
                    return None
    return None


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
