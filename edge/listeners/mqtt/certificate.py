"""The device that a client's certificate names."""

from __future__ import annotations

import asyncio
from typing import Final

_SAN_KINDS: Final = ("DNS", "URI", "email")


def name_in_certificate(transport: asyncio.BaseTransport) -> str:
    """The subject's common name, else the first subject alternative name, as a user name; empty: there is none. The
    certificate itself was checked in the handshake."""
    certificate = transport.get_extra_info("peercert")
    if not certificate:
        return ""
    for attributes in certificate.get("subject", ()):
        for key, value in attributes:
            if key == "commonName":
                return str(value)
    names = [str(value) for kind, value in certificate.get("subjectAltName", ()) if kind in _SAN_KINDS]
    return names[0] if names else ""
