"""What happened in a world, line by line: the same for the same seed."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

import structlog

from tests.worlds.loop import PROCESS

LINES_SHOWN: Final = 40
"""Of a world that failed."""


class Trace:
    """Keeps all lines where they are to be written to a file, else the last ones."""

    def __init__(self, now_s: Callable[[], float], *, whole: bool) -> None:
        self._now_s = now_s
        self._lines: deque[tuple[float, str, str, tuple[Any, ...]]] = deque(maxlen=None if whole else LINES_SHOWN)

    def add(self, who: str, what: str, *facts: Any) -> None:
        """`what` is constant, facts vary. Facts are shown as they are when the trace is: give what does not change."""
        self._lines.append((self._now_s(), who, what, facts))

    def lines(self) -> list[str]:
        return [
            f"{now_s:10.4f}  {who:<12} {what}{' ' if facts else ''}{' '.join(map(str, facts))}"
            for now_s, who, what, facts in self._lines
        ]

    @contextlib.contextmanager
    def takes_logs(self) -> Iterator[None]:
        """What production code logs meanwhile stands here."""

        def take(_logger: Any, method: str, event: Any) -> Any:
            process = PROCESS.get()
            facts = (f"{name}={value}" for name, value in event.items() if name not in ("event", "part", "exc_info"))
            self.add(process.name if process else "", f"{method} {event['event']}", *facts)
            error = event.get("exc_info")
            if isinstance(error, BaseException):
                self.add("", repr(error))
            raise structlog.DropEvent

        before = structlog.get_config()
        structlog.configure(processors=[take], wrapper_class=_Logger, cache_logger_on_first_use=False)
        try:
            yield
        finally:
            structlog.configure(**before)


_Logger = structlog.make_filtering_bound_logger("info")
