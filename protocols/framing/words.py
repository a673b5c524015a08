"""Words that several framings have in common."""

from __future__ import annotations

from typing import Literal

ByteOrder = Literal["big", "little"]
