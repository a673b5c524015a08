"""What stands in a command's frame, for protocols that have no place of their own for its name and id."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from protocols.errors import UNREADABLE
from protocols.events import RESPONSE
from protocols.messages import Command, Origin, Priority

_MARK: Final = b'"response"'
_ID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
"""Of a command: a UUID. Other texts under that name are a device's own."""


def framed(command: Command, form: str) -> bytes:
    """`form`: `payload`, the command's as it is; `json`: `{"command": name, "id": id, "payload": …}`, in which the
    payload stands as JSON if it is, else as text, else as `{"hex": …}`; empty, it is left out."""
    if form == "payload":
        return command.payload
    made: dict[str, Any] = {"command": command.name, "id": command.id}
    if command.payload:
        made["payload"] = _value(command.payload)
    return msgspec.json.encode(made)


def is_answer(frame: bytes) -> bool:
    """Whether a frame is a device's answer to a command, and no message: a JSON object whose `response` is a command's
    id (protocols/events.py)."""
    if _MARK not in frame:
        return False
    try:
        said = msgspec.json.decode(frame)
    except UNREADABLE:
        return False
    named = said.get(RESPONSE) if isinstance(said, dict) else None
    return isinstance(named, str) and _ID.fullmatch(named) is not None


def answer_origin(origin: Origin) -> Origin:
    """Of a device's answers, whose messages have `origin`."""
    return msgspec.structs.replace(origin, codec=RESPONSE, priority=max(origin.priority, Priority.EVENT))


def _value(payload: bytes) -> Any:
    try:
        return msgspec.json.decode(payload)
    except UNREADABLE:
        pass
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return {"hex": payload.hex()}
