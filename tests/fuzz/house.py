"""All targets, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tests.fuzz.parsers import batches, coap, codecs, framings, http, mqtt, texts
from tests.fuzz.target import Parser

PARSERS: Final[dict[str, Parser]] = {
    parser.name: parser for family in (mqtt, coap, http, framings, codecs, texts, batches) for parser in family.PARSERS
}


def parsers(names: Sequence[str] = ()) -> list[Parser]:
    """Those of a name, or of a beginning of it; all without names."""
    return [parser for name, parser in PARSERS.items() if not names or any(name.startswith(wanted) for wanted in names)]
