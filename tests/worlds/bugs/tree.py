"""Deliberate bugs: patches beside this file, and a copy of the tree with one of them in it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

FOLDER: Final = Path(__file__).parent
ROOT: Final = FOLDER.parent.parent.parent
PACKAGES: Final = ("tidegate", "protocols", "sync", "edge", "cloud", "firmware_sim", "tests")


class Bug(msgspec.Struct, frozen=True):
    name: str
    text: str
    """What is wrong."""
    patch: Path


def bugs() -> list[Bug]:
    return [Bug(path.stem, path.read_text().partition("\n")[0], path) for path in sorted(FOLDER.glob("*.patch"))]


def applies(bug: Bug, tree: Path = ROOT) -> str:
    """Empty, or why not."""
    return _git_apply(bug, tree, "--check")


@contextlib.contextmanager
def with_bug(bug: Bug | None) -> Iterator[Path]:
    """A copy of the tree, with that bug. Raises ValueError if the patch does not apply."""
    with tempfile.TemporaryDirectory(prefix="tidegate-bug-") as folder:
        for package in PACKAGES:
            shutil.copytree(
                ROOT / package, Path(folder) / package, ignore=shutil.ignore_patterns("__pycache__", "node_modules")
            )
        if bug is not None:
            trouble = _git_apply(bug, Path(folder))
            if trouble:
                raise ValueError(f"{bug.patch.name}: {trouble}")
        yield Path(folder)


def _git_apply(bug: Bug, tree: Path, *options: str) -> str:
    done = subprocess.run(
        ["git", "apply", "-C1", "--recount", *options, str(bug.patch)],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr.strip()
