"""Payloads that no codec can read, as bad firmware and bad memory make them. Pure.

Each begins as the right one does, so that the ledger's mark (boot and seq) can still be read from its bytes, and whose
it is where the payload says it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Final

_MARK: Final = re.compile(rb'\{"boot":(\d{1,10}),"seq":(\d{1,10}),')


def garbled(payload: bytes, rng: random.Random) -> bytes:
    """`payload` is a JSON object that begins with boot and seq; what comes out is no JSON."""
    return rng.choice(_WAYS)(payload)


def name_in(payload: bytes, alias_key: str) -> str:
    """What a device that names itself has under its alias key; empty: it is not there."""
    found = re.search(rb'"%s":"([^"\\]+)"' % re.escape(alias_key.encode()), payload)
    return "" if found is None else found[1].decode(errors="replace")


def mark_in(payload: bytes) -> tuple[int, int] | None:
    """Boot and seq at the beginning of a payload, whatever follows; None where they are not there."""
    found = _MARK.match(payload)
    return None if found is None else (int(found[1]), int(found[2]))


def _cut_off(payload: bytes) -> bytes:
    """A buffer that was too short."""
    return payload[: -(len(payload) // 4 + 1)]


def _not_text(payload: bytes) -> bytes:
    """Memory that was never written."""
    return payload[:-1] + b',"note":"\xff\xfe\x80"}'


def _not_a_number(payload: bytes) -> bytes:
    """C's printf of a sensor that gives no value."""
    return payload[:-1] + b',"spare":nan}'


def _run_together(payload: bytes) -> bytes:
    """Two messages in one."""
    return payload + payload


_WAYS: Final[tuple[Callable[[bytes], bytes], ...]] = (_cut_off, _not_text, _not_a_number, _run_together)
