"""Certificates and keys: readable, of each other, and not about to expire."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography import x509

from edge.doctor.finding import Finding, Site, failed, ok, warning
from edge.listeners.config import TlsFiles
from edge.listeners.sockets import tls_context
from tidegate.console import UserError

EXPIRES_SOON_D: Final = 21
"""What renews certificates by itself does so a month before they end; one that was not needs somebody."""


def check(site: Site) -> Iterator[Finding]:
    now_s = time.time()
    for _, listener in site.config.listeners:
        if listener.server_tls is not None:
            yield of(listener.name, listener.server_tls, now_s)
    if site.config.link.ca_file:
        yield authorities("link.ca_file", Path(site.config.link.ca_file), now_s)


def of(name: str, files: TlsFiles, now_s: float) -> Finding:
    what = f"TLS of {name}"
    try:
        tls_context(name, files)
    except UserError as error:
        return failed(what, error.message, error.remedy)
    mode = files.key.stat().st_mode
    if mode & stat.S_IRWXO:
        return warning(
            what, f"{files.key} can be read by every user ({stat.filemode(mode)})", f"chmod o-rwx {files.key}"
        )
    return _of_dates(what, files.cert, now_s, "renew it, and then: tidegate-edge reload")


def authorities(what: str, file: Path, now_s: float) -> Finding:
    return _of_dates(what, file, now_s, "get the authority's new certificate")


def _of_dates(what: str, file: Path, now_s: float, remedy: str) -> Finding:
    """Of the certificate that ends first: an authority's that has ended ends those below it."""
    try:
        found = x509.load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError) as error:
        return failed(what, f"{file}: {error}", "give a readable PEM file of certificates")
    first = min(found, key=lambda one: one.not_valid_after_utc)
    days = (first.not_valid_after_utc.timestamp() - now_s) / 86_400
    until = f"{file}: valid until {first.not_valid_after_utc:%Y-%m-%d} ({first.subject.rfc4514_string()})"
    if days < 0:
        return failed(what, f"{until}: it has expired", remedy)
    if any(one.not_valid_before_utc.timestamp() > now_s for one in found):
        return failed(what, f"{file} is not valid yet, by this machine's clock", "see to the clock")
    if days < EXPIRES_SOON_D:
        return warning(what, f"{until}: {days:.0f} days", remedy)
    return ok(what, until)
