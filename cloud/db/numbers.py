"""Parts of statements over points of history (words: cloud/model/series.py): `value` as jsonb, `exact` and `number`."""

from __future__ import annotations

from typing import Final

from cloud.model.series import NUMBER_MAX

_NUMBER_MIN: Final = 1e-270
"""What is smaller is 0: PostgreSQL would refuse what a double cannot hold."""
NUMBER: Final = f"""CASE WHEN exact BETWEEN {_NUMBER_MIN!r} AND {NUMBER_MAX!r}
    OR exact BETWEEN -{NUMBER_MAX!r} AND -{_NUMBER_MIN!r} THEN exact::float8 WHEN abs(exact) < 1 THEN 0::float8 END"""
EXACT: Final = "CASE WHEN jsonb_typeof(value) = 'number' THEN value::numeric END"
ORDER: Final = "event_time, received_time, id"
NEWEST: Final = "event_time DESC, received_time DESC, id DESC"
"""In the order of points."""
