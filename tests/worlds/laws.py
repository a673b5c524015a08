"""What is broken, if anything."""

from __future__ import annotations

from typing import Final

from tests.worlds.trace import Trace

VIOLATIONS_MAX: Final = 5
"""A world that is broken stays broken."""


class Laws:
    """Collects what is broken; a world ends at the first."""

    def __init__(self, trace: Trace) -> None:
        self.violations: list[str] = []
        self._trace = trace

    def broken(self, law: str, text: str) -> None:
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(f"{law}: {text}")
            self._trace.add("law", "BROKEN", law, text)
