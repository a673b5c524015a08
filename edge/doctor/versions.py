"""What runs here: Tidegate, Python, libraries, the system."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sqlite3
import ssl
import sys
from collections.abc import Iterator
from typing import Final

from edge.doctor.finding import Finding, Site, failed, ok
from tidegate.console import DISTRIBUTION

_EXTRA: Final = re.compile(r"""extra\s*==\s*['"]edge['"]""")
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")


def check(_site: Site) -> Iterator[Finding]:
    yield ok("tidegate", importlib.metadata.version(DISTRIBUTION))
    yield ok(
        "python",
        f"{platform.python_version()} at {sys.executable}; {ssl.OPENSSL_VERSION}, SQLite {sqlite3.sqlite_version}",
    )
    yield libraries(importlib.metadata.requires(DISTRIBUTION) or [])
    yield ok("system", f"{_distribution()}, kernel {platform.release()}, {platform.machine()}")


def libraries(required: list[str]) -> Finding:
    """`required`: of the distribution (PEP 508); those of other parts of it are passed over."""
    found, missing = [], []
    for requirement in required:
        name = _NAME.match(requirement)
        if name is None or (";" in requirement and not _EXTRA.search(requirement)):
            continue
        try:
            found.append(f"{name[0]} {importlib.metadata.version(name[0])}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name[0])
    if missing:
        return failed("libraries", f"missing: {', '.join(missing)}", "install it anew: pip install 'tidegate[edge]'")
    return ok("libraries", ", ".join(found))


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return platform.system()
