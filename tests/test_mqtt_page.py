"""docs/MQTT.md says what the tests show of the MQTT standards, and why where they show nothing."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_page_is_what_the_tests_say() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "mqtt.py"))
    assert made["empty_rows"]() == [], "a section that no test shows needs its reason"
    assert (ROOT / "docs" / "MQTT.md").read_text() == made["page"](), "docs/MQTT.md is old: run `make docs`"
