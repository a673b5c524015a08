"""Imports point one way: {tidegate, protocols} <- sync <- {edge, cloud}; and protocols is pure."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

MAY_IMPORT = {
    "tidegate": frozenset[str](),
    "protocols": frozenset[str](),
    "sync": frozenset({"tidegate", "protocols"}),
    "edge": frozenset({"tidegate", "protocols", "sync"}),
    "cloud": frozenset({"tidegate", "protocols", "sync"}),
    "firmware_sim": frozenset({"tidegate", "protocols"}),
}
"""Package to the packages of ours that it may import; itself always."""

SIMULATOR_SERVICE = ("cloud.services.simulator", "firmware_sim.signals")
"""The one exception: the cloud's simulator service uses the signal generators and nothing else of it."""

OUTSIDE_WORLD = frozenset(
    {
        "asyncio", "concurrent", "http", "multiprocessing", "os", "pathlib", "queue", "random", "secrets", "select",
        "selectors", "shutil", "signal", "socket", "socketserver", "ssl", "subprocess", "tempfile", "time",
        "urllib", "uvloop", "zmq",
    }
)  # fmt: skip
"""What pure code has no use for: its clock, network, disk and randomness are arguments. (`threading` is not here: its
`local` is how a compressor is kept from being used by two at once.)"""


def imported_modules(source: str, module: str, *, is_package: bool = False) -> Iterator[str]:
    """Dotted names of all that `module` imports, anywhere in it; relative ones made absolute."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                here = parts[: len(parts) - node.level + is_package]
                base = ".".join([*here, base]).rstrip(".")
            # What is named may be a module itself: `from firmware_sim import signals`.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def breaches(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """What `module` imports and may not, sorted."""
    package = module.split(".")[0]
    allowed = MAY_IMPORT[package] | {package}
    found = set()
    for name in imported_modules(source, module, is_package=is_package):
        top = name.split(".")[0]
        if top in MAY_IMPORT and top not in allowed and not _is_simulator_service(module, name):
            found.add(top)
        if package == "protocols" and top in OUTSIDE_WORLD:
            found.add(top)
    return sorted(found)


def _is_simulator_service(module: str, name: str) -> bool:
    service, signals = SIMULATOR_SERVICE
    return _within(module, service) and _within(name, signals)


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def our_modules() -> Iterator[tuple[Path, str]]:
    for package in MAY_IMPORT:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path, ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_imports_point_one_way() -> None:
    wrong = {}
    for path, module in our_modules():
        found = breaches(path.read_text(), module, is_package=path.name == "__init__.py")
        if found:
            wrong[module] = found
    assert wrong == {}


def test_every_package_is_looked_at() -> None:
    assert {module.split(".")[0] for _, module in our_modules()} == set(MAY_IMPORT)
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks", "examples", "docs"}
    assert packages == set(MAY_IMPORT), "a new package needs a line in MAY_IMPORT"


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("edge.sender", "import cloud.app", ["cloud"]),
        ("cloud.app", "from edge.recorder import Recorder", ["edge"]),
        ("sync.log.log", "def f():\n    from edge import config", ["edge"]),
        ("protocols.batch", "from tidegate import logs", ["tidegate"]),
        ("protocols.times", "import time", ["time"]),
        ("protocols.mqtt.session", "from socket import socket\nimport os.path", ["os", "socket"]),
        ("tidegate.config", "import protocols", ["protocols"]),
        ("firmware_sim.devices.device", "import sync.bus\nfrom edge import x", ["edge", "sync"]),
        ("cloud.services.writer", "from firmware_sim import signals", ["firmware_sim"]),
        ("cloud.services.simulator", "from firmware_sim.devices import mqtt", ["firmware_sim"]),
        ("cloud.services.simulator.run", "import firmware_sim.signals_of_others", ["firmware_sim"]),
        ("edge.status.page", "from ...cloud import app", ["cloud"]),
    ],
)
def test_a_breach_is_found(module: str, source: str, expected: list[str]) -> None:
    assert breaches(source, module) == expected


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("edge.app", "from . import cli\nfrom .status import page\nfrom sync.log import Log\nimport os"),
        ("protocols.batch", "import zlib\nfrom protocols.limits import X\nfrom . import errors"),
        ("cloud.services.simulator", "from firmware_sim.signals import Sine"),
        ("cloud.services.simulator.run", "from firmware_sim import signals"),
    ],
)
def test_what_may_be_imported_may(module: str, source: str) -> None:
    assert breaches(source, module) == []
