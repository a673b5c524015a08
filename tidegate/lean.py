"""Keeps out of a process what a library would bring along and nothing here uses."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, cast


@contextlib.contextmanager
def without_rich() -> Iterator[None]:
    """For importing structlog, which loads rich where it is installed: 3 MB and 60 ms for a form of tracebacks that we
    do not use. Whoever draws on a terminal imports it as ever."""
    if "rich" in sys.modules:
        yield
        return
    modules = cast("dict[str, Any]", sys.modules)
    modules["rich"] = None  # so that importing it raises ImportError
    try:
        yield
    finally:
        del modules["rich"]
