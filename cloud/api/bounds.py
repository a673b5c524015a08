"""What no request may be, looked at before any of it is parsed."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud.api.problems import Problem
from protocols.limits import BATCH_BYTES_MAX

BODY_BYTES_MAX: Final = BATCH_BYTES_MAX
"""One request's body: HTTP ingest takes one batch, every other request is far smaller."""

FILE_BYTES_MAX: Final = 64 * 1024 * 1024
"""A file of past telemetry: some 1,000,000 lines. Larger ones are cut by whoever has them."""
FILES: Final = "/api/v1/imports"


class Bounds:
    """ASGI middleware: refuses bodies over BODY_BYTES_MAX (files: FILE_BYTES_MAX) while they come, and addresses
    with U+0000, which no database text can hold."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            problem = Problem(400, "invalid", "Invalid request", "the address holds the character U+0000")
            await problem.response()(scope, receive, send)
            return
        bytes_max = FILE_BYTES_MAX if scope["path"] == FILES else BODY_BYTES_MAX
        if _declared_bytes(scope) > bytes_max:
            await _too_large(bytes_max).response()(scope, receive, send)
            return
        read = 0

        async def bounded() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > bytes_max:
                raise _too_large(bytes_max)
            return message

        await self._app(scope, bounded, send)


def _declared_bytes(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0


def _too_large(bytes_max: int) -> Problem:
    return Problem(
        413,
        "too-large",
        "Too large",
        f"the body is larger than {bytes_max:,} bytes",
        field="body",
        limit=bytes_max,
        remedy="send it in several requests",
    )
