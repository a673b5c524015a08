"""A client that is generated from the API's description, and the example that is documented with it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cloud.api.app import PREFIX
from cloud.db import users

if TYPE_CHECKING:
    import httpx

    from tests.contract.api_server import Api
    from tests.contract.ingesting import Ingesting

pytest_plugins = ("tests.contract.postgres", "tests.contract.api_server", "tests.contract.ingest_fixtures")

TOOLS = Path(sys.executable).parent.parent / "openapi" / "bin"
"""An environment of its own, as users would have one (Makefile)."""
EXAMPLE = Path(__file__).parents[2] / "examples" / "first_project.py"


async def run(*command: str | Path, **environment: str) -> str:
    paths = {"PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"}
    running = await asyncio.create_subprocess_exec(
        *command,
        env=os.environ | paths | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await running.communicate()
    assert running.returncode == 0, output.decode()
    return output.decode()


async def test_a_generated_client_takes_a_project_from_nothing_to_history(
    api: Api,
    admin: httpx.AsyncClient,
    behind: Ingesting,
    tmp_path: Path,
) -> None:
    client = tmp_path / "client"
    told = await run(
        TOOLS / "openapi-python-client", "generate",
        "--url", f"{api.url}{PREFIX}/openapi.json", "--output-path", client,
    )  # fmt: skip
    assert "warning" not in told.lower(), "some of the API cannot be had by a generated client"
    async with api.database.transaction() as conn:
        password = await users.reset(conn, "admin")
    shown = await run(TOOLS / "python", EXAMPLE, api.url, "admin", password, PYTHONPATH=str(client))
    *records, series = shown.splitlines()
    assert [line.split(": ")[1] for line in records] == ["stored"] * 3
    assert series == "moisture: 33.0 % on average, 34.5 % at most"
