"""One input, tried on a parser; and one that breaks it, made small, kept, and named."""

from __future__ import annotations

import contextlib
import hashlib
import shlex
import traceback
from pathlib import Path
from typing import Final

import msgspec

from protocols.errors import WireError
from tests.fuzz.target import Parser
from tests.fuzz.work import STEPS_FREE, TooMuchWorkError, cpu_limit, steps_limit

REGRESSIONS: Final = Path(__file__).parent / "regressions"
TRACED_FROM_BYTES: Final = 1024
"""Shorter inputs cannot take many steps, but by a loop without an end."""
SEVERAL: Final = ".several"
SHRINKS_MAX: Final = 2_000
SHOWN_BYTES_MAX: Final = 200


class BrokenError(AssertionError):
    """An input did what none may do."""

    def __init__(self, target: str, data: bytes, what: str, where: str, *, several: bool = False) -> None:
        super().__init__(f"{target}: {what}")
        self.target = target
        self.data = data
        self.several = several
        """The data is MessagePack, an array of inputs, which do it together."""
        self.what = what
        """The error, for people."""
        self.where = where
        """The lines that led to it."""


def outcome(target: Parser, data: bytes, *, traced: bool = True) -> str:
    """What becomes of the input: TAKEN, or its refusal. `traced`: also by its steps. Raises BrokenError."""
    traced = traced and len(data) >= TRACED_FROM_BYTES
    steps = steps_limit(STEPS_FREE + target.steps_per_byte * len(data)) if traced else contextlib.nullcontext()
    try:
        with cpu_limit(), steps:
            return target.check(data)
    except target.refusals as refusal:
        return refusal.code if isinstance(refusal, WireError) else type(refusal).__name__
    except (Exception, TooMuchWorkError) as error:
        raise BrokenError(target.name, data, f"{type(error).__name__}: {error}"[:500], _places(error)) from error


def shrunk(broken: BrokenError, target: Parser) -> BrokenError:
    """The same defect by fewer bytes, as far as a bounded search finds any."""
    kind = broken.what.partition(":")[0]
    tries = SHRINKS_MAX
    size = len(broken.data) // 2
    while size:
        at = 0
        while at < len(broken.data) and tries:
            tries -= 1
            less = _broken_by(target, broken.data[:at] + broken.data[at + size :])
            if less is not None and less.what.partition(":")[0] == kind:
                broken = less
            else:
                at += size
        size //= 2
    return broken


def keep(broken: BrokenError) -> str:
    """Writes the input beside the others that broke something once; how to try it again, for people."""
    folder = folder_of(broken.target)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (hashlib.sha256(broken.data).hexdigest()[:16] + (SEVERAL if broken.several else ""))
    path.write_bytes(broken.data)
    shown = broken.data[:SHOWN_BYTES_MAX]
    more = f" … {len(broken.data):,} bytes" if len(broken.data) > len(shown) else ""
    place = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{broken}\n  {shown!r}{more}\n{broken.where}  replay: {replay_of(broken.target, place)}"


def replay_of(target: str, path: Path) -> str:
    return f"python -m tests.fuzz --target {shlex.quote(target)} --replay {path}"


def kept(target: str) -> list[bytes]:
    """Inputs that broke it once."""
    folder = folder_of(target)
    return [data for path in sorted(folder.iterdir()) for data in inputs_of(path)] if folder.is_dir() else []


def inputs_of(path: Path) -> list[bytes]:
    data = path.read_bytes()
    return msgspec.msgpack.decode(data, type=list[bytes]) if path.suffix == SEVERAL else [data]


def folder_of(target: str) -> Path:
    return REGRESSIONS / target.replace(":", "-").replace(" ", "-").replace(",", "")


def _broken_by(target: Parser, data: bytes) -> BrokenError | None:
    try:
        outcome(target, data)
    except BrokenError as broken:
        return broken
    return None


def _places(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return "".join(f"  {Path(frame.filename).name}:{frame.lineno} {frame.line}\n" for frame in frames)
