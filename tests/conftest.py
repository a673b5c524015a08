"""What holds for all tests: those in folders that start servers or processes carry the marker `servers`."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

# A shell's background job ignores Ctrl-C, and so would all that the tests start, and are to end by it.
signal.signal(signal.SIGINT, signal.default_int_handler)

TESTS = Path(__file__).parent
SERVER_FOLDERS = ("contract", "end_to_end")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(TESTS) and item.path.relative_to(TESTS).parts[0] in SERVER_FOLDERS:
            item.add_marker(pytest.mark.servers)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A command sets up the logging of its whole process; the test's streams are gone when the next test logs."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
    structlog.reset_defaults()
