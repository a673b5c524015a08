"""Whether an engine answers, asked the way its clients will."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

import asyncpg
import nats.errors
import nats.js.errors
from nats.aio.client import Client

from cloud.engines.program import NotReadyError, SilentError
from cloud.engines.settings import NATS, PING_S, POSTGRESQL, PROGRESS_EVERY_S, Progress
from protocols.limits import NATS_PAYLOAD_BYTES_MAX
from tidegate.console import UserError

POSTGRESQL_VERSION_MIN: Final = 14
"""The first one with multiranges, in which record numbers are kept."""

ASK_AGAIN_S: Final = (0.02, 0.5)
"""First and longest wait between two questions: an engine is often there within 0.1 s, and logs each refusal."""


async def connect_postgresql(url: str) -> asyncpg.Connection[asyncpg.Record]:
    """A connection. Raises NotReadyError, or UserError for what waiting does not mend."""
    place = place_of(url)
    try:
        async with asyncio.timeout(PING_S):
            return await asyncpg.connect(url, timeout=PING_S)
    except asyncpg.InvalidCatalogNameError as error:
        raise UserError(f"the database server at {place}: {error}", "create it, or name another one") from None
    except asyncpg.InvalidAuthorizationSpecificationError as error:  # a wrong password is one of these
        raise UserError(f"the database at {place} cannot be used: {error}", "correct database.url") from None
    except (asyncpg.CannotConnectNowError, asyncpg.TooManyConnectionsError) as error:
        raise NotReadyError(_reason(error)) from None
    except TimeoutError:
        raise SilentError(f"no answer within {PING_S:g} s") from None
    except (
        ValueError
    ):  # before the next ones, as asyncpg's own for it is also among those; its text may quote the password
        raise UserError(
            "database.url is not a URL of PostgreSQL",
            "postgresql://user:password@host:5432/name, with special characters as %40 for @",
        ) from None
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise SilentError(f"no PostgreSQL: {_reason(error)}") from None
    except OSError as error:
        raise NotReadyError(_reason(error)) from None


async def ping_postgresql(url: str) -> None:
    """Returns if the database takes our queries. Raises NotReadyError, or UserError for what waiting does not mend."""
    connection = await connect_postgresql(url)
    major = connection.get_server_version().major
    await close_postgresql(connection)
    if major < POSTGRESQL_VERSION_MIN:
        raise UserError(
            f"the database at {place_of(url)} is PostgreSQL {major}", f"use {POSTGRESQL_VERSION_MIN} or later"
        )


async def close_postgresql(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """In good order if the server lets us, at once otherwise."""
    try:
        await connection.close(timeout=PING_S)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        connection.terminate()


async def ping_nats(url: str) -> None:
    """Returns if JetStream takes our requests. Raises NotReadyError, or UserError for what waiting does not mend."""
    place = place_of(url)
    if not all(_is_nats_url(one) for one in url.split(",")):
        raise UserError("nats.url is not a URL, or not one of NATS", "nats://user:password@host:4222")
    last: list[Exception] = []

    async def keep(error: Exception) -> None:
        last[:] = [error]

    client = Client()
    try:
        async with asyncio.timeout(PING_S):
            await client.connect(
                url.split(","),
                error_cb=keep,
                connect_timeout=int(PING_S),
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
            )
            if client.max_payload < NATS_PAYLOAD_BYTES_MAX:
                raise UserError(
                    f"NATS at {place} takes messages of {client.max_payload:,} bytes only",
                    f"set max_payload: {NATS_PAYLOAD_BYTES_MAX} in its configuration",
                )
            await client.jetstream(timeout=PING_S).account_info()
    except TimeoutError:
        raise SilentError(f"no answer within {PING_S:g} s") from None
    except nats.js.errors.ServiceUnavailableError:
        raise NotReadyError("JetStream is not enabled, or not ready yet") from None
    except nats.errors.Error as error:
        if isinstance(error, nats.errors.NoServersError) and last:
            raise NotReadyError(_reason(last[0])) from None
        if "authorization" in str(error).lower():
            raise UserError(f"NATS at {place} refuses the credentials", "correct nats.url") from None
        raise SilentError(str(error)) from None
    except OSError as error:
        raise NotReadyError(_reason(error)) from None
    finally:
        await client.close()


async def reach(
    name: str, url: str, ping: Callable[[str], Awaitable[None]], within_s: float, progress: Progress
) -> None:
    """Waits until the engine at `url` is ready. Raises UserError after `within_s`, or for what waiting does not
    mend."""
    noun, setting = {POSTGRESQL: ("the database", "database.url"), NATS: ("NATS", "nats.url")}[name]
    place = place_of(url)
    reason = f"no answer within {within_s:g} s"
    try:
        async with asyncio.timeout(within_s):
            loop = asyncio.get_running_loop()
            began = told = loop.time()
            delay, longest = ASK_AGAIN_S
            while True:
                try:
                    await ping(url)
                except NotReadyError as error:
                    reason = str(error)
                else:
                    break
                if loop.time() - told >= PROGRESS_EVERY_S:
                    told = loop.time()
                    progress(name, f"waiting for {place}: {reason}, {told - began:.0f} s")
                await asyncio.sleep(delay)
                delay = min(delay * 2, longest)
    except TimeoutError:
        raise UserError(
            f"{noun} at {place} cannot be reached: {reason}",
            f"start it, correct {setting}, or unset it for an embedded one",
        ) from None
    progress(name, place)


def place_of(url: str) -> str:
    """host:port of each server in the URL: what may be shown, as credentials may not."""
    return ",".join(_netloc(one).rpartition("@")[2] or "?" for one in url.split(","))


def _is_nats_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("nats", "tls") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _netloc(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def _reason(error: Exception) -> str:
    """In one line: it stands in progress and in messages of ours."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return text.partition("\n")[0] or type(error).__name__
