"""The support archive: what helps somebody far away, made anew from what may be told. No file of the gateway is copied
into it, so no key, no password and no device's data can be in it."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from edge.doctor.finding import Finding, Site
from edge.status.rejects import Rejections
from tidegate.console import UserError
from tidegate.in_force import tree
from tidegate.logs import redact

FOLDER: Final = "tidegate-support"

CONTENTS: Final[Mapping[str, str]] = {
    "doctor.json": "what the checks found",
    "config.json": "the configuration in force, without passwords and keys",
    "accounting.json": "what the running gateway says of itself: figures, listeners, link, clock",
    "refusals.json": "codes and times of what was refused or rejected last, without payloads and names",
}


class _Refusal(msgspec.Struct, frozen=True):
    time_ms: int
    code: str
    listener: str
    size: int
    """Of the payload, in bytes."""


def contents(site: Site, findings: Sequence[Finding], rejections: Rejections | None) -> dict[str, bytes]:
    """File names of CONTENTS to bytes; those of a gateway that does not run are left out."""
    parts: dict[str, Any] = {"doctor.json": findings, "config.json": tree(site.config)}
    if site.accounting is not None:
        parts["accounting.json"] = site.accounting
    if rejections is not None:
        parts["refusals.json"] = {
            "rejected_counts": rejections.rejected_counts,
            "refused_counts": rejections.refused_counts,
            "rejected": [
                _Refusal(one.received_time, one.code, one.listener, one.payload.size) for one in rejections.rejected
            ],
            "refused": [_Refusal(one.time_ms, one.code, one.listener, one.payload.size) for one in rejections.refused],
        }
    return {name: _json(part) for name, part in parts.items()}


def write(file: Path, parts: Mapping[str, bytes], now_s: int) -> None:
    """A tar.gz of mode 0600. Raises UserError; a file that exists is not written over."""
    try:
        number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(number, "wb") as stream, tarfile.open(fileobj=stream, mode="w:gz") as archive:
            for name, data in parts.items():
                entry = tarfile.TarInfo(f"{FOLDER}/{name}")
                entry.size, entry.mtime, entry.mode = len(data), now_s, 0o600
                archive.addfile(entry, io.BytesIO(data))
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror or error}", "give the path of a new file") from None


def _json(part: Any) -> bytes:
    plain = msgspec.to_builtins(part, enc_hook=str)
    redacted = redact(None, "", {"": plain})[""]
    return msgspec.json.format(msgspec.json.encode(redacted), indent=2) + b"\n"
