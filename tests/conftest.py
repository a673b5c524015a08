"""What holds for all tests: those in folders that start servers or processes carry the marker `servers`, and come
first."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SERVER_FOLDERS = ("end_to_end", "contract")
"""Those whose files take longest first: two workers end at nearly the same moment then."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if next(iter(_folders(item)), "") in SERVER_FOLDERS:
            item.add_marker(pytest.mark.servers)
    items.sort(key=_order)


def _folders(item: pytest.Item) -> tuple[str, ...]:
    return item.path.relative_to(TESTS).parts[:-1] if item.path.is_relative_to(TESTS) else ()


def _order(item: pytest.Item) -> int:
    folder = next(iter(_folders(item)), "")
    return SERVER_FOLDERS.index(folder) if folder in SERVER_FOLDERS else len(SERVER_FOLDERS)
