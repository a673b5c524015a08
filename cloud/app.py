"""The composition root of a cloud process: which services run here, and how they are wired."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Collection, Coroutine, Sequence
from functools import partial
from typing import IO, Any, Final

import msgspec
from starlette.routing import WebSocketRoute

from cloud import imports as files
from cloud import rejects, series, where
from cloud.apart import Apart
from cloud.api.app import create_app
from cloud.api.context import ApiContext, ApiSettings
from cloud.config import JETSTREAM_BYTES_MIN, CloudConfig
from cloud.db import devices, imports, users
from cloud.db.database import Connection, Database, DatabaseError
from cloud.db.errors import NotFoundError
from cloud.db.migrate import migrate
from cloud.db.postgres_store import PostgresStore
from cloud.db.registry import revisions
from cloud.engines import Engines, EngineSettings
from cloud.engines.settings import POSTGRESQL
from cloud.http_server import HttpServer
from cloud.ingest.fate_watch import FateWatch
from cloud.ingest.rest_server import RestServer
from cloud.ingest.routes import Ingest
from cloud.ingest.routes import router as ingest_router
from cloud.ingest.usual_request import UsualRequest
from cloud.metrics import PipelineMetrics
from cloud.model.buckets import AskedError
from cloud.model.curation import Report
from cloud.model.importing import ImportMapping
from cloud.model.job import Job
from cloud.model.rejected import RejectFilter, RejectReplay
from cloud.model.series import PointsQuestion, Question
from cloud.model.where import Place
from cloud.monitoring import Monitoring
from cloud.registry_feed import RegistryFeed
from cloud.services import dead_letters
from cloud.services.auto_create import AutoCreation
from cloud.services.catalog import PIPELINE, pipeline_service
from cloud.services.commands import Commands
from cloud.services.credit import CreditWatch
from cloud.services.curator import Curator
from cloud.services.dead_letters import DeadLetterReplay
from cloud.services.imports import ImportJob
from cloud.services.jobs import JobKind, Jobs
from cloud.services.links import Links
from cloud.services.live import LiveTail
from cloud.services.receiver import Receiver
from cloud.services.reject_replay import RejectReplays
from cloud.services.replay import InboxReplay
from cloud.services.runner import ServiceRunner
from cloud.services.standings import Standings
from cloud.topics import ROUTABLE, TOPICS
from protocols.messages import Lane
from sync.bus.contract import BusError
from sync.bus.jetstream import JetStreamBus
from sync.link.server import unix_ms
from sync.registry import Alias
from tidegate.console import UserError
from tidegate.logs import get_logger

SERVICES: Final = ("api", "receiver", "processor", "transponder", "replay", "curator")
"""api: API and web UI. receiver: gateways' links and HTTP ingest, which share the API's port."""
FIRST_USER: Final = "admin"
"""Made when its password is asked for and it is not there yet."""
DEVICE_DIGITS_MAX: Final = 18
"""Of a device's id: more are no bigint."""
HTTP_SERVICES: Final = frozenset(("api", "receiver"))

Progress = Callable[[str, str], None]
"""(part, text): told while the process starts."""
Run = Callable[[asyncio.Event], Coroutine[Any, Any, None]]

_log = get_logger("cloud")


async def run_cloud(
    config: CloudConfig, services: Collection[str], stop: asyncio.Event, progress: Progress, first_sign_in: str
) -> None:
    """Runs until `stop`, or until one of the parts fails, and then ends the others in order. Raises UserError.

    `first_sign_in`: the command that gives the first user a password; told while there is nobody."""
    unknown = sorted(set(services) - set(SERVICES))
    if unknown:
        raise UserError(f"no service is called {', '.join(unknown)}", f"choose from {', '.join(SERVICES)}")
    async with contextlib.AsyncExitStack() as stack:
        http = None
        if HTTP_SERVICES & set(services):
            http = HttpServer(
                config.http.host, config.http.port, tls_cert=config.http.tls_cert, tls_key=config.http.tls_key
            )
            stack.callback(http.close)
        engines = await stack.enter_async_context(Engines(_engine_settings(config), progress))
        database = await _open_database(engines.database_url, progress)
        stack.push_async_callback(database.close)
        bus = await _connect_bus(engines.nats_url)
        stack.push_async_callback(bus.close)
        feed = await RegistryFeed.open(database)
        stack.push_async_callback(feed.close)
        process = _Process(config, database, bus, feed, set(services))
        progress("cloud", "ready" if set(services) == set(SERVICES) else f"{', '.join(services)} ready")
        if "api" in services and not await _anybody(database):
            progress("sign in", f"nobody can yet: {first_sign_in}")
        await process.run(http, stop, engines)


class _Process:
    """Everything that runs in one process, by name."""

    def __init__(
        self, config: CloudConfig, database: Database, bus: JetStreamBus, feed: RegistryFeed, services: set[str]
    ) -> None:
        self._config = config
        self._database = database
        self._bus = bus
        self._feed = feed
        self._services = services
        self._monitoring = Monitoring()
        self._monitoring.check("database", self._database_well)
        self._store = PostgresStore(database)
        self._receiver = Receiver(bus, self._store)
        self._standings = Standings(database, unix_ms)
        self._credit = CreditWatch(bus.stats)
        self._commands = Commands(database, unix_ms)
        self._links = Links(self._receiver, feed, database, self._standings, self._credit, self._commands, unix_ms)

    async def run(self, http: HttpServer | None, stop: asyncio.Event, engines: Engines) -> None:
        inner: dict[str, Run] = {"engines": engines.supervise, "registry": self._feed.run}
        outer: dict[str, Run] = {}
        if pipeline := [name for name in PIPELINE if name in self._services]:
            for name in pipeline:
                service = pipeline_service(name, self._feed)
                runner = ServiceRunner(service, self._bus, self._store, lanes=(Lane.LIVE,))
                inner[name] = runner.run
                self._monitoring.count(partial(_labelled, name, runner.counts))
            apart = Apart(
                engines.database_url,
                engines.nats_url,
                pipeline,
                self._config.log_level,
                database_here=not self._config.database.url,
            )
            inner["backfill"] = apart.run
            self._monitoring.count(
                lambda: {
                    at: n for name in pipeline for at, n in _labelled(f"{name} backfill", apart.counts(name)).items()
                }
            )
        if "replay" in self._services:
            replay = InboxReplay(self._feed, self._bus, self._store)
            self._feed.on_change(replay.want)
            inner["replay"] = replay.run
            inner["automatic creation"] = AutoCreation(self._database).run
            kinds: dict[str, JobKind] = {
                dead_letters.KIND: DeadLetterReplay(),
                imports.KIND: ImportJob(self._feed, unix_ms),
            }
            inner["jobs"] = Jobs(kinds, self._bus, self._store).run
            inner["replay of rejects"] = RejectReplays(self._feed, self._bus, self._store).run
        if "curator" in self._services:
            curator = Curator(self._database, unix_ms, self._config.curator.every_s)
            outer["curator"] = curator.run
            self._monitoring.count(lambda: _labelled("curator", curator.counts))
        if "receiver" in self._services:
            inner["receiver"] = self._receiver.run
            inner["credit"] = self._credit.run
            inner["standings"] = self._standings.run
            inner["commands"] = self._commands.run
            outer["links"] = self._links.run
            self._monitoring.count(lambda: _labelled("receiver", self._receiver.counts))
            self._monitoring.gauge("gateways_connected", "gateways connected here", lambda: self._links.connected)
        if http is not None:
            outer["http"] = await self._http(http)
        if http is not None:
            metrics = PipelineMetrics(self._database, lambda: self._credit.topics, unix_ms)
            self._monitoring.table(metrics.read, metrics.collect)
        self._monitoring.ready = True
        await _run_in_order(outer, inner, stop)

    async def _http(self, http: HttpServer) -> Run:
        public_url = self._config.http.public_url
        settings = ApiSettings(public_url=public_url, routable=ROUTABLE)
        context = await ApiContext.open(self._database, LiveTail(self._bus), settings)
        app = create_app(context)
        app.include_router(self._monitoring.router())
        if "receiver" in self._services:
            rest_server = RestServer(self._receiver, lambda: secrets.randbits(63) or 1, unix_ms)
            app.state.ingest = Ingest(rest_server, self._feed, FateWatch(self._database), context)
            app.include_router(ingest_router)
            app.router.routes.insert(0, UsualRequest())
            app.router.routes.append(WebSocketRoute("/link/v1", self._links.app))

        async def serve(stop: asyncio.Event) -> None:
            try:
                await http.serve(app, stop)
            finally:
                await context.close()

        return serve

    async def _database_well(self) -> str | None:
        try:
            async with self._database.connection() as conn:
                await conn.execute("SELECT 1")
        except DatabaseError as error:
            return str(error)
        return None


def _labelled(service: str, counts: msgspec.Struct) -> dict[tuple[str, str], float]:
    return {(name, service): value for name, value in msgspec.structs.asdict(counts).items()}


async def _run_in_order(outer: dict[str, Run], inner: dict[str, Run], stop: asyncio.Event) -> None:
    """Runs all until `stop`; then those that take things in end first, then those that work on them."""
    inner_stop = asyncio.Event()
    outside = [asyncio.create_task(run(stop), name=name) for name, run in outer.items()]
    inside = [asyncio.create_task(run(inner_stop), name=name) for name, run in inner.items()]
    stopped = asyncio.create_task(stop.wait(), name="stop")
    tasks = {*outside, *inside, stopped}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        if outside:
            await asyncio.wait(outside)
        inner_stop.set()
        await asyncio.wait(inside)
        for task in tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                _log.error("part failed", part=task.get_name(), reason=str(task.exception()))
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _engine_settings(config: CloudConfig) -> EngineSettings:
    return EngineSettings(
        data_dir=config.data_dir,
        database_url=config.database.url,
        nats_url=config.nats.url,
        postgres_port=config.database.port,
        nats_port=config.nats.port,
        jetstream_bytes_max=config.nats.jetstream_bytes_max,
        reach_within_s=config.engines.reach_within_s,
    )


async def _open_database(url: str, progress: Progress) -> Database:
    try:
        database = await Database.connect(url)
        try:
            applied = await migrate(database)
        except BaseException:
            await database.close()
            raise
    except DatabaseError as error:
        raise UserError(
            f"the database cannot be used: {error}", "start again once it answers; its log says more"
        ) from None
    if applied:
        progress("postgresql", f"schema at migration {applied[-1].number}")
    return database


async def _connect_bus(url: str) -> JetStreamBus:
    try:
        return await JetStreamBus.connect(url, TOPICS)
    except BusError as error:
        raise UserError(
            f"NATS cannot be used: {error}",
            f"its JetStream needs file storage for {JETSTREAM_BYTES_MIN} bytes of topics, and has to answer",
        ) from None


async def _anybody(database: Database) -> bool:
    async with database.connection() as conn:
        return await users.anybody(conn)


async def reset_user(config: CloudConfig, name: str) -> str:
    """A new password for a user, through the database that the configuration names. Raises UserError."""
    async with Engines(_engine_settings(config), lambda part, text: None, names=(POSTGRESQL,)) as engines:
        database = await _open_database(engines.database_url, lambda part, text: None)
        try:
            return await database.run(lambda conn: _reset(conn, name))
        finally:
            await database.close()


async def where_is(
    config: CloudConfig, project_id: str | None, asked: str | tuple[tuple[str, str, str], int]
) -> list[Place]:
    """The places of a message, asked for by its id or by (network, alias key, alias) and time. Raises UserError."""
    async with Engines(_engine_settings(config), lambda part, text: None, names=(POSTGRESQL,)) as engines:
        database = await _open_database(engines.database_url, lambda part, text: None)
        try:
            if isinstance(asked, str):
                return await where.by_id(database, project_id, asked)
            alias, time_ms = asked
            return await where.by_device(database, project_id or await _only_project(database), Alias(*alias), time_ms)
        except ValueError:
            remedy = "give a message's id or a record as epoch/number, as history, inbox and rejects show them"
            raise UserError(f"{asked!r} is no message and no record", remedy) from None
        finally:
            await database.close()


async def read_history(
    config: CloudConfig,
    project_id: str | None,
    device: str,
    question: Question | PointsQuestion,
    names: Sequence[str],
    take: Callable[[list[dict[str, Any]]], bool],
    *,
    descending: bool = False,
) -> None:
    """Gives rows of a device (its id, or network:key:alias) to `take`, until it wants no more. Raises UserError."""
    async with Engines(_engine_settings(config), lambda part, text: None, names=(POSTGRESQL,)) as engines:
        database = await _open_database(engines.database_url, lambda part, text: None)
        try:
            project = project_id or await _only_project(database)
            scope = series.Scope(project, (await _device(database, project, device),))
            read = (
                series.bucket_rows(database, scope, question, names, descending=descending)
                if isinstance(question, Question)
                else series.point_rows(database, scope, question, names, descending=descending)
            )
            async for rows in read:
                if not take(rows):
                    break
        except AskedError as error:
            raise UserError(str(error), error.remedy or "ask for less") from None
        finally:
            await database.close()


async def _device(database: Database, project_id: str, ref: str) -> int:
    parts = ref.split(":", 2)
    try:
        async with database.connection() as conn:
            if ref.isascii() and ref.isdigit() and len(ref) <= DEVICE_DIGITS_MAX:
                return (await devices.get(conn, project_id, int(ref))).id
            if len(parts) == 3:
                return (await devices.find(conn, project_id, Alias(*parts)))[0]
    except NotFoundError as error:
        raise UserError(str(error), "GET /api/v1/devices lists what there is") from None
    raise UserError(f"{ref!r} is no device", "name it by its id or as network:key:alias")


async def replay_rejects(
    config: CloudConfig,
    project_id: str | None,
    wanted: RejectFilter,
    told: Callable[[RejectReplay], None],
    *,
    wait: bool,
) -> RejectReplay:
    """Has rejects decoded again by the service `replay` of the cloud that runs, and tells how far it is. Raises
    UserError."""
    async with Engines(_engine_settings(config), lambda part, text: None, names=(POSTGRESQL,)) as engines:
        database = await _open_database(engines.database_url, lambda part, text: None)
        try:
            project = project_id or await _only_project(database)
            return await rejects.replay(database, project, wanted, told, wait=wait)
        finally:
            await database.close()


async def bring_file(
    config: CloudConfig,
    project_id: str | None,
    name: str,
    file: IO[bytes],
    mapping: ImportMapping,
    told: Callable[[Job], None],
    *,
    wait: bool,
) -> Job:
    """Has a file read by the service `replay` of the cloud that runs, and tells how far it is. Raises UserError."""
    async with Engines(_engine_settings(config), lambda part, text: None, names=(POSTGRESQL,)) as engines:
        database = await _open_database(engines.database_url, lambda part, text: None)
        try:
            project = project_id or await _only_project(database)
            return await files.bring(database, project, name, file, mapping, told, wait=wait)
        except files.FileError as error:
            raise UserError(f"{name}: {error.detail}", "see what the file holds") from None
        finally:
            await database.close()


async def curate(config: CloudConfig, project_id: str | None, stop: asyncio.Event, *, dry_run: bool) -> list[Report]:
    """Lets go of what retention lets go of, in all projects; `dry_run`: tells what that would be. `project_id`: whose
    reports; None: everybody's. Raises UserError."""
    async with Engines(_engine_settings(config), lambda part, text: None, names=(POSTGRESQL,)) as engines:
        database = await _open_database(engines.database_url, lambda part, text: None)
        try:
            async with database.connection() as conn:
                projects = sorted(await revisions(conn))
            if project_id is not None and project_id not in projects:
                raise UserError(f"there is no project {project_id}", "GET /api/v1/projects lists what there is")
            chosen = projects if project_id is None else [project_id]
            curator = Curator(database, unix_ms, config.curator.every_s)
            reports = await curator.curate(stop, is_scheduled=not dry_run, dry_for=chosen if dry_run else ())
            if reports is None:
                remedy = "wait for it: GET /api/v1/curator/reports shows how far it is"
                raise UserError("the curator is at work already", remedy)
            return [report for report in reports if report.project_id in chosen and report.dry_run == dry_run]
        finally:
            await database.close()


async def _only_project(database: Database) -> str:
    async with database.connection() as conn:
        names = sorted(await revisions(conn))
    if len(names) != 1:
        raise UserError("there are several projects" if names else "there is no project", "name one: --project ID")
    return names[0]


async def _reset(conn: Connection, name: str) -> str:
    try:
        return await users.reset(conn, name)
    except NotFoundError:
        if name != FIRST_USER:
            raise UserError(f"no user is called {name}", f"the first user is called {FIRST_USER}") from None
    return await users.create(conn, name, admin=True)
