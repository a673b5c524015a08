"""Structured logging to standard error: for people on a terminal, as JSON lines for machines.

A line is an event and its facts: `logger.warning("link lost", gateway="quay-1", reason="timeout")`. Log once, where the
matter is dealt with. The event is a constant text, the facts vary: a kind of line that repeats too often is passed over
for a while, and says so. What libraries log by `logging` comes out in the same form.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import Any, TextIO, cast

from tidegate.lean import without_rich

with without_rich():
    import structlog
    from structlog.typing import FilteringBoundLogger, Processor

from tidegate.repeats import Repeats

LEVELS = ("debug", "info", "warning", "error", "critical")
REDACTED = "[redacted]"
NESTING_MAX = 8
"""Deeper values are shown as they print: nothing that is logged on purpose is nested deeper."""

_SECRET_WORDS = frozenset(
    {"secret", "password", "passwd", "passphrase", "token", "authorization", "cookie", "jwt", "psk"}
)
_SECRET_KEYS = ("private_key", "signing_key", "api_key")
_WORD = re.compile(r"[a-z0-9]+")
_CREDENTIALS = re.compile(r"(?i)(://[^\s:/@]*:)[^\s/@]+(?=@)|(\bbearer\s+)[\w.~+/=-]+")


def configure(*, level: str, as_json: bool | None = None, clock: Callable[[], float] = time.monotonic) -> None:
    """Sets up logging of the whole process; may be called again, as when the configuration is known.

    `level` is one of LEVELS; `as_json` None means JSON unless standard error is a terminal.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    human = sys.stderr.isatty() if as_json is None else not as_json
    repeats = Repeats(clock)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer = _human() if human else _json()
    structlog.configure(
        processors=[_limited(repeats), *shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Unfailing(sys.stderr))),
        cache_logger_on_first_use=False,  # a logger that was used before the configuration is read follows it too
    )
    named: list[Processor] = [_add_part, *shared]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=named,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(_LibraryFilter(repeats))
    # A library's chatter is of interest when something is being looked for, else only its complaints.
    logging.basicConfig(
        handlers=[handler], level=number if level == "debug" else max(number, logging.WARNING), force=True
    )


def get_logger(name: str) -> FilteringBoundLogger:
    """The logger of a part of the process, which its lines name, such as `edge.sender`."""
    return cast(FilteringBoundLogger, structlog.get_logger(part=name))


def is_secret(name: str) -> bool:
    """True if values under this name (a log key, a setting) are not to be shown."""
    lowered = name.lower()
    if lowered.endswith(_SECRET_KEYS):
        return True
    return any(word.removesuffix("s") in _SECRET_WORDS for word in _WORD.findall(lowered))


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """The processor that keeps secrets out: values under secret names, passwords in URLs, bearer tokens."""
    return {key: REDACTED if is_secret(key) else _redacted(value, NESTING_MAX) for key, value in event.items()}


def redact_text(text: str) -> str:
    """The text without passwords in URLs and bearer tokens."""
    return _CREDENTIALS.sub(lambda found: (found[1] or found[2]) + REDACTED, text)


def _redacted(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return redact_text(value)
    if depth == 0:
        return redact_text(repr(value))
    if isinstance(value, Mapping):
        return {key: REDACTED if is_secret(str(key)) else _redacted(item, depth - 1) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_redacted(item, depth - 1) for item in value]
    if isinstance(value, BaseException):
        return redact_text(repr(value))
    return value


class _Unfailing:
    """A stream whose lines are lost, and nothing else with them, while it is full, closed, or read by nobody any more.

    There is nobody to tell, and what logs must go on: a disk that is full of logs is no reason to stop recording.
    (The handlers of `logging` do the same.)
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def _limited(repeats: Repeats) -> Processor:
    """The processor that lets lines of one kind pass only so often."""

    def limit(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        facts = repeats.admit((event.get("part"), event["event"]))
        if facts is None:
            raise structlog.DropEvent
        event.update(facts)
        return event

    return limit


class _LibraryFilter(logging.Filter):
    """The same for what libraries log; its kind is the text before the arguments are put in."""

    def __init__(self, repeats: Repeats) -> None:
        super().__init__()
        self._repeats = repeats

    def filter(self, record: logging.LogRecord) -> bool:
        facts = self._repeats.admit((record.name, str(record.msg)))
        record.facts = facts
        return facts is not None


def _add_part(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    record = event["_record"]
    event["part"] = record.name
    event.update(record.facts)
    return event


def _human() -> Processor:
    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=32
    )


def _json() -> Processor:
    return structlog.processors.JSONRenderer(default=str)
