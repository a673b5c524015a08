"""Worlds can fail: deliberate bugs are caught. `make bugs` shows all of them, and how soon."""

from __future__ import annotations

import pytest

from tests.worlds.bugs.__main__ import caught
from tests.worlds.bugs.tree import applies, bugs

QUICK = ("acknowledge-before-sync", "range-before-jetstream", "no-rewind")
SEEDS = 20


def test_every_patch_applies_to_the_code_as_it_is() -> None:
    assert {bug.name: trouble for bug in bugs() if (trouble := applies(bug))} == {}
    assert len(bugs()) >= 12
    assert {bug.name for bug in bugs()}.issuperset(QUICK)


@pytest.mark.servers
@pytest.mark.parametrize("name", QUICK)
def test_a_bug_is_caught(name: str) -> None:
    (bug,) = (bug for bug in bugs() if bug.name == name)
    row = caught(bug, SEEDS)
    assert row["seeds"] is not None, row
