"""A few cases of each parser on each check, 2,000 with the whole of the tests; `make fuzz` goes on for longer."""

from __future__ import annotations

import pytest

from tests.fuzz.cases import try_cases, try_memory, try_stretches
from tests.fuzz.house import PARSERS
from tests.fuzz.target import TAKEN, Parser

FEW = 80
MANY = 2_000
SHORT_BYTES = 1_500
LONG_BYTES = 12_000
SHARE_MIN = 0.02
"""Of cases that are taken, and of those that are refused: mutations are neither harmless nor hopeless."""


@pytest.mark.parametrize("target", PARSERS.values(), ids=PARSERS.keys())
def test_a_few_of_any_bytes_are_taken_or_refused(target: Parser) -> None:
    try_stretches(target, SHORT_BYTES)
    try_cases(target, FEW)


@pytest.mark.servers
@pytest.mark.parametrize("target", PARSERS.values(), ids=PARSERS.keys())
def test_any_bytes_are_taken_or_refused_and_cost_no_more_than_their_size(target: Parser) -> None:
    became = try_cases(target, MANY)
    assert became.total() >= MANY
    assert SHARE_MIN < became[TAKEN] / became.total() < 1 - SHARE_MIN, became
    try_stretches(target, LONG_BYTES)
    try_memory(target, MANY // 20, LONG_BYTES)
