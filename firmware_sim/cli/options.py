"""Options that several commands have, and values that are written like a person would."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from firmware_sim.run_folder import RUN_FOLDER
from tidegate.console import UserError

RunFolder = Annotated[Path, typer.Option("--run", help="Folder of the demo.", envvar="TIDEGATE_RUN")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DEFAULT_RUN_FOLDER: Final = RUN_FOLDER

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


def duration_s(text: str) -> float:
    """Seconds in `90`, `60s`, `1.5m`, `250ms`, `2h`. Raises UserError."""
    found = _DURATION.fullmatch(text.strip())
    if found is None or float(found[1]) == 0:
        raise UserError(f"{text!r} is not a duration", "a number with ms, s, m or h: 60s")
    return float(found[1]) * _UNITS_S[found[2]]


def assignment(text: str) -> tuple[str, object]:
    """`temperature=71.5` as name and value: a JSON value if it is one, else a string. Raises UserError; also for NaN
    and Infinity: whoever writes them means a number, and must not find a string stored."""
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise UserError(f"{text!r} is not name=value", "tidegate-sim send bench-01 temperature=71.5")
    try:
        return name, msgspec.json.decode(value)
    except msgspec.DecodeError:
        if _is_unbounded(value):
            raise UserError(
                f"{value} is not a number JSON can hold", f"a finite number; as a string: '{name}=\"{value}\"'"
            ) from None
        return name, value


def _is_unbounded(value: str) -> bool:
    try:
        return not math.isfinite(float(value))
    except ValueError:
        return False
