"""`/.well-known/core`: what there is here, in CoRE link format (RFC 6690)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import quote

from edge.listeners.coap.routes import DOWN, RESPONSE, base_of
from protocols.codecs.media import CONTENT_FORMATS

UPLINK_TYPE: Final = "tidegate.uplink"
COMMANDS_TYPE: Final = "tidegate.commands"
RESPONSE_TYPE: Final = "tidegate.response"


def links(templates: Sequence[str], queries: Iterable[str]) -> bytes:
    """A template's fields stand in links as they are, percent-encoded, and readable in the title. `queries`: what is
    asked for (section 4.1), by `rt` and `href`; others do not filter."""
    wanted = [query.partition("=")[::2] for query in queries]
    formats = " ".join(map(str, CONTENT_FORMATS))
    found = []
    for template in templates:
        base = base_of(template)
        stem = f"{base}/" if base else ""
        for path, kind, more in (
            (template, UPLINK_TYPE, f'ct="{formats}"'),
            (f"{stem}{DOWN}", COMMANDS_TYPE, "obs"),
            (f"{stem}{RESPONSE}/{{id}}", RESPONSE_TYPE, f'ct="{formats}"'),
        ):
            href = "/" + quote(path, safe="/")
            if all(_fits(value, {"rt": kind, "href": href}.get(name)) for name, value in wanted):
                title = path.replace("\\", "\\\\").replace('"', '\\"')
                found.append(f'<{href}>;rt="{kind}";title="/{title}";{more}')
    return ",".join(found).encode()


def _fits(wanted: str, value: str | None) -> bool:
    if value is None:
        return True
    return value.startswith(wanted[:-1]) if wanted.endswith("*") else value == wanted
