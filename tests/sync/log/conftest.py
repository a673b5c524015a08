from __future__ import annotations

import random

import pytest


@pytest.fixture
def noise() -> bytes:
    """What does not compress: a few entries of it fill a segment."""
    return random.Random(71).randbytes(20_000)
