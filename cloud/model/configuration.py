"""Whether a configuration may be pushed to a gateway. What its listeners may be, the gateway itself knows."""

from __future__ import annotations

from typing import Final

from sync.configuration import SECTIONS, TOML_BYTES_MAX
from tidegate.config import parse

NAME: Final = "configuration"
"""What errors call it."""


class NotPushableError(Exception):
    """Reject."""

    def __init__(self, detail: str, remedy: str, limit: int | None = None) -> None:
        super().__init__(detail)
        self.remedy = remedy
        self.limit = limit


def check(toml: str) -> None:
    """Raises ConfigError for what is no TOML, with the line; NotPushableError."""
    size = len(toml.encode(errors="surrogatepass"))
    if size > TOML_BYTES_MAX:
        raise NotPushableError(f"is {size:,} bytes long", "push fewer listeners", TOML_BYTES_MAX)
    tree = parse(NAME, toml)
    allowed = ", ".join(sorted(SECTIONS))
    for section in tree:
        if section not in SECTIONS:
            detail = f"{section} is for the gateway's own file: it belongs to whoever owns the machine"
            raise NotPushableError(detail, f"leave it out; the sections that may be pushed are {allowed}")
    if not tree:
        raise NotPushableError(
            "has no section, which would leave the gateway without a listener",
            f"give it at least one of {allowed}; DELETE returns the gateway to its own file",
        )
