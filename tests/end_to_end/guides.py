"""The configuration that a guide of docs/guides/ begins with."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tests.end_to_end.test_docs import DOCS


def section(guide: str, here: Mapping[str, str]) -> str:
    """Of the guide, which has the name of its kind of listener; `here`: what stands there, and what it is here."""
    text = (DOCS / "guides" / f"{guide}.md").read_text()
    found = re.search(rf"^    \[\[{guide}\]\]\n(?:^    .*\n|^\n)+", text, re.MULTILINE)
    assert found is not None
    made = re.sub(r"^    ", "", found[0], flags=re.MULTILINE)
    for there, value in here.items():
        made = made.replace(there, value)
    return made
