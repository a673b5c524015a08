"""/docs: the API's reference in one page that needs nothing from elsewhere, and so works on a site without internet.
It reads the OpenAPI description and lets a signed-in person try what it lists."""

from __future__ import annotations

from importlib import resources
from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse

router = APIRouter(include_in_schema=False)

_PAGE: Final = resources.files(__package__).joinpath("reference.html").read_text(encoding="utf-8")
_POLICY: Final = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'"


@router.get("/docs")
async def reference() -> HTMLResponse:
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})


@router.get("/")
@router.get("/api")
@router.get("/api/v1")
async def to_reference() -> RedirectResponse:
    return RedirectResponse("/docs")
