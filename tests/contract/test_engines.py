"""The embedded engines, with the real programs, killed and hindered in the ways that happen."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import nats
import nats.errors
import pytest
from nats.aio.client import Client

import cloud
from cloud.engines import Engines, EngineSettings, engine
from cloud.engines.access import is_free
from cloud.engines.process import find
from tests.contract.nats_server import NatsServer
from tidegate.console import UserError

ROOT = Path(cloud.__file__).parent.parent
OWNER = Path(__file__).with_name("engine_owner.py")
READY_S = 60.0
CUT_OFF = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What a client sees of a database that is killed."""
NOBODY = 65534
PROGRAMS = {"postgresql": "postgres", "nats": "nats-server"}

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Below a directory that only we may enter; whatever still runs in it is ended."""
    top = Path(tempfile.mkdtemp(prefix="tidegate-test-engines-"))
    yield top / "data"
    for name in PROGRAMS:
        for pid in running(top / "data", name):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(top)


def running(data_dir: Path, name: str) -> list[int]:
    return find(data_dir / name / "data", PROGRAMS[name])


def postmaster(data_dir: Path) -> int:
    """Its process id, 0 while there is none."""
    try:
        words = (data_dir / "postgresql/data/postmaster.pid").read_text().split()
    except FileNotFoundError:
        return 0
    return int(words[0]) if words else 0


def free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        return one.getsockname()[1], two.getsockname()[1]


def mounted(data_dir: Path) -> list[str]:
    """What everybody sees of it, or where it would be; other mounts come and go beside this."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if str(data_dir) in line or " /media" in line]


def make_open(data_dir: Path, owner: int) -> None:
    """A data directory, `owner`'s, that everybody may reach."""
    data_dir.parent.chmod(0o755)
    data_dir.mkdir(mode=0o755)
    os.chown(data_dir, owner, owner)


def give_to_root(top: Path) -> None:
    for path in (top, *top.rglob("*")):
        os.chown(path, 0, 0)


def settings_for(data_dir: Path, **changes: Any) -> EngineSettings:
    postgres_port, nats_port = free_ports()
    return EngineSettings(**{"data_dir": data_dir, "postgres_port": postgres_port, "nats_port": nats_port, **changes})


async def ignore(error: Exception) -> None:
    pass


def silent(name: str, text: str) -> None:
    pass


@contextlib.asynccontextmanager
async def supervised(settings: EngineSettings) -> AsyncIterator[Engines]:
    stop = asyncio.Event()
    async with Engines(settings, silent) as engines:
        task = asyncio.create_task(engines.supervise(stop))
        try:
            yield engines
        finally:
            stop.set()
            await task


async def query(url: str, sql: str, *arguments: Any) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql, *arguments)
    finally:
        await connection.close()


async def publish(url: str, text: bytes) -> None:
    client = Client()
    try:
        await client.connect(url, allow_reconnect=False, error_cb=ignore)
        stream = client.jetstream()
        await stream.add_stream(name="t", subjects=["t"])
        await stream.publish("t", text)
    finally:
        await client.close()


async def published(url: str) -> list[bytes]:
    client = await nats.connect(url)
    stream = client.jetstream()
    state = (await stream.stream_info("t")).state
    found = [await stream.get_msg("t", seq) for seq in range(state.first_seq, state.last_seq + 1)]
    await client.close()
    return [message.data or b"" for message in found]


async def start_owner(
    settings: EngineSettings, *prefix: str, python: str = sys.executable
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(*prefix, python, str(OWNER), str(settings.data_dir)),
        *(str(settings.postgres_port), str(settings.nats_port)),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        cwd="/",
        stdout=subprocess.PIPE,
    )


async def ready(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(READY_S):
        line = await process.stdout.readline()
    assert line, "the owner ended before it was ready"
    found: dict[str, Any] = json.loads(line)
    return found


async def end(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        process.send_signal(number)
    async with asyncio.timeout(READY_S):
        await process.communicate()


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(READY_S):
        while not holds():
            await asyncio.sleep(0.05)


async def test_a_fresh_start_and_a_later_one_with_the_data_of_the_first(data_dir: Path) -> None:
    lines: list[tuple[str, str]] = []
    settings = settings_for(data_dir)
    async with Engines(settings, lambda name, text: lines.append((name, text))) as engines:
        urls = engines.database_url, engines.nats_url
        await query(urls[0], "CREATE TABLE kept AS SELECT 'é' AS text")
        await publish(urls[1], b"kept")
        assert await query(urls[0], "SHOW data_checksums") == "on"
        assert await query(urls[0], "SHOW server_encoding") == "UTF8"
        assert await query(urls[0], "SHOW synchronous_commit") == "on"
        assert await query(urls[0], "SHOW unix_socket_directories") == ""
    assert ("postgresql", f"embedded, 127.0.0.1:{settings.postgres_port}") in lines
    assert ("nats", f"embedded, 127.0.0.1:{settings.nats_port}") in lines
    assert not running(data_dir, "postgresql")
    assert not running(data_dir, "nats")
    async with Engines(settings, silent) as engines:
        assert (engines.database_url, engines.nats_url) == urls
        assert await query(engines.database_url, "SELECT text FROM kept") == "é"
        assert await published(engines.nats_url) == [b"kept"]


async def test_strangers_on_the_same_machine_are_not_let_in(data_dir: Path) -> None:
    settings = settings_for(data_dir)
    async with Engines(settings, silent):
        with pytest.raises(asyncpg.InvalidPasswordError):
            await query(f"postgresql://tidegate:guess@127.0.0.1:{settings.postgres_port}/tidegate", "SELECT 1")
        with pytest.raises(nats.errors.Error, match="Authorization"):
            await publish(f"nats://127.0.0.1:{settings.nats_port}", b"from a stranger")
    for secret in ("postgresql/access.json", "nats/access.json", "nats/data/nats.conf"):
        assert (data_dir / secret).stat().st_mode & 0o077 == 0


@as_root
async def test_as_root_the_engines_run_unprivileged_below_directories_that_stay_closed(data_dir: Path) -> None:
    mounts = mounted(data_dir)
    async with Engines(settings_for(data_dir), silent):
        assert data_dir.parent.stat().st_mode & 0o777 == 0o700
        for name in PROGRAMS:
            pids = running(data_dir, name)
            assert pids
            for pid in pids:
                assert os.stat(f"/proc/{pid}").st_uid != 0
                assert os.getsid(pid) != os.getsid(0), "Ctrl-C would reach it"
            assert (data_dir / name).stat().st_uid == 0
            assert (data_dir / name / "data").stat().st_uid != 0
        assert mounted(data_dir) == mounts
    assert data_dir.parent.stat().st_mode & 0o777 == 0o700


@as_root
async def test_as_root_where_everybody_may_enter_no_stage_is_needed(data_dir: Path) -> None:
    make_open(data_dir, 0)
    async with Engines(settings_for(data_dir), silent) as engines:
        assert await query(engines.database_url, "SELECT 1") == 1


@as_root
async def test_data_that_root_restored_goes_back_to_the_engines_user(data_dir: Path) -> None:
    settings = settings_for(data_dir)
    async with Engines(settings, silent) as engines:
        await query(engines.database_url, "CREATE TABLE kept AS SELECT 1 AS one")
    give_to_root(data_dir)
    async with Engines(settings, silent) as engines:
        assert await query(engines.database_url, "SELECT one FROM kept") == 1


@as_root
async def test_without_the_right_to_mount_root_is_told_what_else_to_do(data_dir: Path) -> None:
    dropped = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    process = await asyncio.create_subprocess_exec(
        *dropped, sys.executable, str(OWNER), str(data_dir), *map(str, free_ports()),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert b"error: " in errors
    assert b"Operation not permitted" in errors
    assert b"run as a normal user" in errors
    assert b"database.url" in errors


def python_for_everybody() -> str | None:
    """This Python, or the system's of the same version, if any user may run it."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{version}"):
        check = [python, "-c", "import ctypes, ssl"]
        if Path(python).exists():
            with contextlib.suppress(PermissionError):
                if subprocess.run(check, user=NOBODY, capture_output=True, check=False).returncode == 0:
                    return python
    return None


@as_root
@pytest.mark.skipif(python_for_everybody() is None, reason="no Python that another user may run")
async def test_a_normal_user_needs_nothing_special(data_dir: Path) -> None:
    make_open(data_dir, NOBODY)
    user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all")
    python = python_for_everybody()
    assert python is not None
    settings = settings_for(data_dir)
    killed = await start_owner(settings, *user, python=python)
    told = await ready(killed)
    assert told["uid"] == NOBODY
    await query(told["database_url"], "CREATE TABLE kept AS SELECT 1 AS one")
    engine_before = postmaster(data_dir)
    await end(killed, signal.SIGKILL)
    heir = await start_owner(settings, *user, python=python)
    told = await ready(heir)
    assert postmaster(data_dir) == engine_before
    assert await query(told["database_url"], "SELECT one FROM kept") == 1
    await end(heir, signal.SIGTERM)
    assert not running(data_dir, "postgresql")
    # Root may go on with it, and leaves it that user's.
    async with Engines(settings, silent) as engines:
        assert await query(engines.database_url, "SELECT one FROM kept") == 1
    assert (data_dir / "postgresql/data").stat().st_uid == NOBODY


async def test_what_a_killed_owner_left_is_adopted_and_stopped_at_the_end(data_dir: Path) -> None:
    settings = settings_for(data_dir)
    owner = await start_owner(settings)
    told = await ready(owner)
    await query(told["database_url"], "CREATE TABLE kept AS SELECT 1 AS one")
    await publish(told["nats_url"], b"kept")
    before = {name: running(data_dir, name) for name in PROGRAMS}
    leader = postmaster(data_dir)
    await end(owner, signal.SIGKILL)
    async with Engines(settings, silent) as engines:
        assert (engines.database_url, engines.nats_url) == (told["database_url"], told["nats_url"])
        assert postmaster(data_dir) == leader
        assert running(data_dir, "nats") == before["nats"]
        assert await query(engines.database_url, "SELECT one FROM kept") == 1
        assert await published(engines.nats_url) == [b"kept"]
    assert not any(running(data_dir, name) for name in PROGRAMS)


async def test_a_killed_database_comes_back_with_every_acknowledged_commit(data_dir: Path) -> None:
    async with supervised(settings_for(data_dir)) as engines:
        await query(engines.database_url, "CREATE TABLE kept (number int PRIMARY KEY)")
        acknowledged: list[int] = []
        first = postmaster(data_dir)

        async def write(numbers: range) -> None:
            connection = await asyncpg.connect(engines.database_url)
            for number in numbers:
                try:
                    await connection.execute("INSERT INTO kept VALUES ($1)", number)
                except CUT_OFF:
                    connection.terminate()
                    return
                acknowledged.append(number)

        writers = [asyncio.create_task(write(range(start, start + 1_000_000))) for start in (0, 1_000_000)]
        await eventually(lambda: len(acknowledged) > 100)
        os.kill(first, signal.SIGKILL)
        await asyncio.gather(*writers)
        await eventually(lambda: postmaster(data_dir) not in (0, first))
        async with asyncio.timeout(READY_S):
            while True:
                with contextlib.suppress(*CUT_OFF):
                    rows = await query(engines.database_url, "SELECT array_agg(number) FROM kept")
                    break
                await asyncio.sleep(0.05)
        assert set(acknowledged) <= set(rows)


async def test_a_killed_nats_comes_back_with_every_acknowledged_message(data_dir: Path) -> None:
    async with supervised(settings_for(data_dir)) as engines:
        await publish(engines.nats_url, b"first")
        (before,) = running(data_dir, "nats")
        os.kill(before, signal.SIGKILL)
        await eventually(lambda: running(data_dir, "nats") not in ([], [before]))
        async with asyncio.timeout(READY_S):
            client = await nats.connect(
                engines.nats_url, max_reconnect_attempts=-1, reconnect_time_wait=0, error_cb=ignore
            )
        await client.close()
        assert await published(engines.nats_url) == [b"first"]


async def test_backends_that_outlive_their_postmaster_do_not_block_the_next_one(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "ORPHANS_LEAVE_S", 0.5)
    async with supervised(settings_for(data_dir)) as engines:
        first = postmaster(data_dir)
        connection = await asyncpg.connect(engines.database_url)
        backend = await connection.fetchval("SELECT pg_backend_pid()")
        os.kill(backend, signal.SIGSTOP)
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: not os.path.exists(f"/proc/{backend}"))
        connection.terminate()
        await eventually(lambda: postmaster(data_dir) not in (0, first))


async def test_ports_that_are_taken_are_passed_over_and_the_choice_is_kept(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        taken = one.getsockname()[1], two.getsockname()[1]
        settings = settings_for(data_dir, postgres_port=taken[0], nats_port=taken[1])
        async with Engines(settings, silent) as engines:
            urls = engines.database_url, engines.nats_url
            assert f":{taken[0]}/" not in urls[0]
            assert not urls[1].endswith(f":{taken[1]}")
            assert await query(urls[0], "SELECT 1") == 1
    async with Engines(settings, silent) as engines:
        assert (engines.database_url, engines.nats_url) == urls


async def test_a_port_that_another_database_takes_in_the_last_moment_is_passed_over(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = settings_for(data_dir)
    looks: list[int] = []

    def outdated(port: int) -> bool:
        """Free when looked at: so it was for each of the two engines."""
        looks.append(port)
        return len(looks) <= 2 or is_free(port)

    async with Engines(taken, silent):
        monkeypatch.setattr("cloud.engines.access.is_free", outdated)
        late = msgspec.structs.replace(taken, data_dir=data_dir.parent / "late")
        async with Engines(late, silent) as engines:
            assert looks[:2] == [taken.postgres_port, taken.nats_port]
            assert await query(engines.database_url, "SHOW data_checksums") == "on"
            assert f":{taken.postgres_port}/" not in engines.database_url
            assert not engines.nats_url.endswith(f":{taken.nats_port}")


async def test_a_process_id_that_is_somebody_elses_by_now_is_not_taken_for_the_database(data_dir: Path) -> None:
    settings = settings_for(data_dir)
    async with supervised(settings) as engines:
        await query(engines.database_url, "CREATE TABLE kept AS SELECT 1 AS one")
    owner = (data_dir / "postgresql/data").stat().st_uid
    other = await asyncio.create_subprocess_exec("sleep", "1000", user=owner)
    try:
        lock = data_dir / "postgresql/data/postmaster.pid"
        lock.write_text(f"{other.pid}\n/nowhere\n1700000000\n7432\n\n127.0.0.1\n")
        os.chown(lock, owner, -1)
        async with Engines(settings, silent) as engines:
            assert await query(engines.database_url, "SELECT one FROM kept") == 1
        assert other.returncode is None
    finally:
        other.kill()
        await other.wait()


async def test_a_stopped_engine_of_an_earlier_start_is_a_clear_error(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(data_dir)
    owner = await start_owner(settings)
    await ready(owner)
    leader = postmaster(data_dir)
    os.kill(leader, signal.SIGSTOP)
    await end(owner, signal.SIGKILL)
    monkeypatch.setattr(engine, "SILENT_S_MAX", 0.2)
    monkeypatch.setattr("cloud.engines.reach.PING_S", 0.2)
    with pytest.raises(UserError, match=f"process {leader}.* does not get ready") as caught:
        async with Engines(settings, silent):
            pass
    assert f"kill -9 {leader}" in caught.value.remedy
    assert postmaster(data_dir) == leader, "it is left to whoever stopped it"
    assert running(data_dir, "postgresql")


async def test_credentials_that_are_missing_are_a_clear_error(data_dir: Path) -> None:
    settings = settings_for(data_dir)
    async with Engines(settings, silent):
        pass
    (data_dir / "postgresql/access.json").unlink()
    with pytest.raises(UserError, match=r"access\.json is missing"):
        async with Engines(settings, silent):
            pass
    assert not running(data_dir, "nats"), "what had started was stopped"


async def test_a_start_that_is_interrupted_leaves_nothing_running(data_dir: Path) -> None:
    settings = settings_for(data_dir)
    started = asyncio.Event()

    def progress(name: str, text: str) -> None:
        if name == "nats" and text.startswith("embedded"):
            started.set()

    async def run() -> None:
        async with Engines(settings, progress):
            raise AssertionError("not this far")

    task = asyncio.create_task(run())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not any(running(data_dir, name) for name in PROGRAMS)
    async with Engines(settings, silent) as engines:
        assert await query(engines.database_url, "SELECT 1") == 1
    assert not list((data_dir / "postgresql").glob("new-*"))


async def test_two_processes_share_the_engines_and_the_last_one_stops_them(data_dir: Path) -> None:
    settings = settings_for(data_dir)
    async with supervised(settings) as first:
        second = await start_owner(settings)
        told = await ready(second)
        assert told["database_url"] == first.database_url
        assert told["nats_url"] == first.nats_url
        leaders = postmaster(data_dir), running(data_dir, "nats")
    assert await query(told["database_url"], "SELECT 1") == 1, "the first left it to the second"
    assert (postmaster(data_dir), running(data_dir, "nats")) == leaders
    await end(second, signal.SIGTERM)
    assert not any(running(data_dir, name) for name in PROGRAMS)


async def test_when_the_owner_is_killed_another_process_takes_care(data_dir: Path) -> None:
    settings = settings_for(data_dir)
    owner = await start_owner(settings)
    await ready(owner)
    async with supervised(settings) as engines:
        await end(owner, signal.SIGKILL)
        first = postmaster(data_dir)
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: postmaster(data_dir) not in (0, first))
    assert not any(running(data_dir, name) for name in PROGRAMS)
    assert engines.database_url


async def test_two_that_start_at_once_agree(data_dir: Path) -> None:
    settings = settings_for(data_dir)
    owners = [await start_owner(settings) for _ in range(3)]
    told = [await ready(owner) for owner in owners]
    assert told[0] == told[1] == told[2]
    await asyncio.gather(*(end(owner, signal.SIGTERM) for owner in owners))
    assert not any(running(data_dir, name) for name in PROGRAMS)


async def test_an_unreachable_database_is_a_clear_error_and_leaves_nothing_running(data_dir: Path) -> None:
    port, _ = free_ports()
    url = f"postgresql://user:secret@127.0.0.1:{port}/db"
    lines: list[str] = []
    settings = settings_for(data_dir, database_url=url, reach_within_s=1.5)
    with pytest.raises(UserError) as caught:
        async with Engines(settings, lambda name, text: lines.append(text)):
            pass
    assert caught.value.message == f"the database at 127.0.0.1:{port} cannot be reached: connection refused"
    assert "database.url" in caught.value.remedy
    assert any("waiting for" in line for line in lines)
    assert "secret" not in "".join([*lines, caught.value.message, caught.value.remedy])
    assert not running(data_dir, "nats")


@pytest.mark.parametrize("url", ["postgresql://user:sec/ret@host/db", "nonsense", "postgresql://[bad"])
async def test_a_malformed_database_url_is_a_clear_error_that_shows_no_password(data_dir: Path, url: str) -> None:
    with pytest.raises(UserError, match=r"database\.url is not a URL") as caught:
        async with Engines(settings_for(data_dir, database_url=url), silent):
            pass
    assert "sec" not in caught.value.message


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nats://127.0.0.1:{port}", "NATS at 127.0.0.1:{port} cannot be reached: connection refused"),
        ("nats://[bad", "nats.url is not a URL"),
        ("nats://no-such-host.invalid:4222", "no-such-host.invalid:4222 cannot be reached"),
    ],
)
async def test_an_unreachable_nats_is_a_clear_error(data_dir: Path, url: str, message: str) -> None:
    port, _ = free_ports()
    with pytest.raises(UserError) as caught:
        async with Engines(settings_for(data_dir, nats_url=url.format(port=port), reach_within_s=1.0), silent):
            pass
    assert message.format(port=port) in caught.value.message
    assert not running(data_dir, "postgresql")


async def test_engines_given_by_url_are_used_and_left_running(data_dir: Path) -> None:
    async with Engines(settings_for(data_dir), silent) as embedded:
        external = settings_for(
            data_dir.parent / "other", database_url=embedded.database_url, nats_url=embedded.nats_url
        )
        async with supervised(external) as engines:
            assert (engines.database_url, engines.nats_url) == (embedded.database_url, embedded.nats_url)
        assert await query(embedded.database_url, "SELECT 1") == 1
        assert not external.data_dir.exists()


async def test_a_url_with_a_wrong_password_fails_at_once(data_dir: Path) -> None:
    async with Engines(settings_for(data_dir), silent) as embedded:
        wrong = settings_for(
            data_dir.parent / "other",
            database_url=embedded.database_url.replace("tidegate:", "tidegate:x"),
            nats_url=embedded.nats_url,
        )
        with pytest.raises(UserError, match="password authentication failed"):
            async with Engines(wrong, silent):
                pass
        wrong = settings_for(
            data_dir.parent / "other",
            database_url=embedded.database_url,
            nats_url=embedded.nats_url.replace("tidegate:", "tidegate:x"),
        )
        with pytest.raises(UserError, match="refuses the credentials"):
            async with Engines(wrong, silent):
                pass


async def test_a_nats_that_takes_too_small_messages_is_refused(data_dir: Path, tmp_path: Path) -> None:
    server = NatsServer(tmp_path, max_payload=1024 * 1024)
    await server.start()
    try:
        with pytest.raises(UserError, match="takes messages of 1,048,576 bytes only") as caught:
            async with Engines(settings_for(data_dir, nats_url=server.url), silent):
                pass
    finally:
        await server.kill()
    assert "max_payload" in caught.value.remedy


async def test_data_of_another_major_version_is_not_touched(data_dir: Path) -> None:
    settings = settings_for(data_dir)
    async with Engines(settings, silent):
        pass
    (data_dir / "postgresql/data/PG_VERSION").write_text("16\n")
    with pytest.raises(UserError, match="was made by PostgreSQL 16"):
        async with Engines(settings, silent):
            pass
