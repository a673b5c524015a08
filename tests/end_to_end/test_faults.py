"""The quickest rows of `make faults`, on one cloud: the others take too long for every run of the tests."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.faults.run import all_rows, run_rows

ROWS = ("gateway-killed", "disk-enospc", "full-cap", "store-bits", "link-flaps")


# `make test` installs strace where it is root: this leaves out only people who run the tests as somebody else.
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("strace") is None, reason="needs root, and strace")
async def test_nothing_is_lost_by_the_quickest_faults() -> None:
    rows = [row for row in all_rows() if row.name in ROWS]
    assert len(rows) == len(ROWS)
    outcomes = await run_rows(rows, quick=True)
    assert [outcome for outcome in outcomes if not outcome.holds] == []
