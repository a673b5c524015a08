"""The demo's way into the API: an administrator whose password is kept, and a session that stays valid."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx
import msgspec

from firmware_sim.cloud_api import ApiError, CloudApi, Session, UnreachableError, token_line
from firmware_sim.run_folder import DemoState, write_private
from tidegate.console import UserError

RESET_S: Final = 60.0
RETRY_S: Final = 5.0
REFRESH_MIN_S: Final = 30.0


class _Reset(msgspec.Struct):
    user: str
    password: str


async def sign_in(state: DemoState, client: httpx.AsyncClient, reset: list[str], keep: Callable[[], None]) -> CloudApi:
    """With the password that is kept; if there is none or it is not right any more, with a new one, by the command
    `reset`."""
    if state.password:
        api = CloudApi(state.api, client, user=state.user, password=state.password)
        try:
            await api.sign_in()
        except ApiError as error:
            if error.status != httpx.codes.UNAUTHORIZED:
                raise
        else:
            return api
    state.password = await _reset(reset)
    keep()
    api = CloudApi(state.api, client, user=state.user, password=state.password)
    await api.sign_in()
    return api


async def keep_auth_fresh(api: CloudApi, path: Path, *, wall_s: Callable[[], float]) -> None:
    """Writes the header line for curl, and again each time that half of the token's life is over; until cancelled."""
    while True:
        try:
            session = await api.sign_in()
        except (UnreachableError, ApiError):
            await asyncio.sleep(RETRY_S)  # the cloud is being started again; the old token may do meanwhile
            continue
        write_private(path, token_line(session).encode())
        await asyncio.sleep(max((expires_s(session) - wall_s()) / 2, REFRESH_MIN_S))


def expires_s(session: Session) -> float:
    """Unix seconds."""
    return datetime.datetime.fromisoformat(session.expires).timestamp()


async def _reset(command: list[str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(RESET_S):
            out, error = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise UserError(f"{' '.join(command)} took longer than {RESET_S:.0f} s") from None
    if process.returncode != 0:
        raise UserError(f"no password for the API: {error.decode(errors='replace').strip()}", " ".join(command))
    return msgspec.json.decode(out, type=_Reset).password
