"""The API keeps to its own description: schemathesis asks every operation, with what the description allows and with
what it does not, and looks at each answer."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import httpx

from cloud.api.app import PREFIX, create_app
from cloud.api.rates import Rates
from cloud.ingest.routes import router as ingest_router
from cloud.model.access import PERMISSIONS

if TYPE_CHECKING:
    from cloud.api.context import ApiContext
    from tests.contract.api_server import Api
    from tests.contract.ingesting import Ingesting

pytest_plugins = ("tests.contract.postgres", "tests.contract.api_server", "tests.contract.ingest_fixtures")

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "ignored_auth",
)
SECONDS = 60
REQUEST_S = 10
ENDLESS = f"{PREFIX}/stream"
"""Its answers have no end; tests of its own read it."""


def test_every_operation_says_what_it_does() -> None:
    app = create_app(cast("ApiContext", None))
    app.include_router(ingest_router)
    described = app.openapi()
    operations = [operation for path in described["paths"].values() for operation in path.values()]
    assert [one["operationId"] for one in operations if not one.get("description")] == []
    assert len({one["operationId"] for one in operations}) == len(operations), "clients call them so"
    assert [name for name in described["components"]["schemas"] if "__" in name] == [], "two models of one name"


async def test_every_operation_answers_as_it_is_described(
    api: Api,
    admin: httpx.AsyncClient,
    behind: Ingesting,
    tmp_path: Path,
) -> None:
    api.context.rates = Rates(10**6, lambda: api.now_s)
    key = (await admin.post("/api-keys", json={"name": "schemathesis", "permissions": PERMISSIONS})).json()["key"]
    running = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("st"), "run", f"{api.url}{PREFIX}/openapi.json",
        "--header", f"Authorization: Bearer {key}",
        "--checks", ",".join(CHECKS),
        "--exclude-path", ENDLESS,
        "--phases", "examples,coverage,fuzzing",
        "--max-examples", "10",
        "--max-time", str(SECONDS),
        "--request-timeout", str(REQUEST_S),
        "--continue-on-failure",
        "--warnings", "off",
        "--no-shrink",
        "--suppress-health-check", "all",
        cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await running.communicate()
    assert running.returncode == 0, output.decode()
