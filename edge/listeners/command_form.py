"""What stands in a command's frame, for protocols that have no place of their own for its name and id."""

from __future__ import annotations

from typing import Any

import msgspec

from protocols.messages import Command


def framed(command: Command, form: str) -> bytes:
    """`form`: `payload`, the command's as it is; `json`: `{"command": name, "id": id, "payload": …}`, in which the
    payload stands as JSON if it is, else as text, else as `{"hex": …}`; empty, it is left out."""
    if form == "payload":
        return command.payload
    made: dict[str, Any] = {"command": command.name, "id": command.id}
    if command.payload:
        made["payload"] = _value(command.payload)
    return msgspec.json.encode(made)


def _value(payload: bytes) -> Any:
    try:
        return msgspec.json.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return {"hex": payload.hex()}
