"""The schema's migrations, as files."""

from __future__ import annotations

from cloud.db.migrate import known_migrations


def test_they_are_numbered_without_a_gap_or_a_double() -> None:
    """Two that were made side by side may have taken the same number: no cloud would start."""
    assert [migration.number for migration in known_migrations()] == list(range(1, len(known_migrations()) + 1))
