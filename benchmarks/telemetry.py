"""The payload that every benchmark sends: one pump's telemetry, from a seed."""

from __future__ import annotations

import random
from typing import Final

PAYLOAD_BYTES: Final = 98
SEQUENCE_FIRST: Final = 1_000_000
"""Sequences count from here, so that all payloads have one length."""


def payload(generator: random.Random, sequence: int) -> bytes:
    """JSON, PAYLOAD_BYTES long; spaces at the end make up what short numbers leave."""
    text = (
        f'{{"boot":17,"seq":{SEQUENCE_FIRST + sequence},"temperature":{generator.gauss(71, 2):.2f},'
        f'"pressure":{generator.gauss(4, 0.1):.3f},"vibration":{generator.random():.3f},"state":"on"}}'
    )
    return text.encode().ljust(PAYLOAD_BYTES)
