"""The gateway: which parts there are, and the order in which they start. They stop in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import importlib.metadata
import os
import random
import resource
import secrets
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Final

from edge.anchors import Anchors, FolderFile
from edge.background import Background, restarted
from edge.books import GatewayBooks
from edge.commands import CommandQueue
from edge.config import EdgeConfig
from edge.courier import Courier, Time
from edge.data_folder import DataFolder, Running
from edge.downlink import GatewayDownlink, Ways
from edge.hangup import rereading
from edge.identity import Identity, load_identity
from edge.listeners.catalog import make_listener
from edge.listeners.clock import GatewayClock, SystemClock
from edge.listeners.collector import Collector
from edge.listeners.config import ListenerConfig
from edge.listeners.listener import Listener, Shared
from edge.listeners.roster import Roster
from edge.places import Places
from edge.presence import Name, PresenceRecorder
from edge.pushed import Pushed
from edge.recorder import CHANNEL, Recorder
from edge.recorder import TOPIC as INBOUND
from edge.reload import Reload
from edge.replica import Replica
from edge.resolver import TOPIC as RESOLVED
from edge.resolver import LocalResolver
from edge.sender import Sender
from edge.service.notify import Notify, Pulse
from edge.status.accounting import Parts, refused_records, summary
from edge.status.server import StatusServer
from edge.status.view import GatewayView, MessageView
from sync.bus.contract import BusError, TopicSpec
from sync.bus.zeromq_hub import ZeroMqHub
from sync.link.client import LinkClient
from sync.link.dial import WebSocketDial
from sync.link.frames import FEATURE_BOOKS, FEATURE_COMMANDS, FEATURE_CONFIGURATION, Hello
from sync.link.limits import Deadlines
from sync.link.regroup import FEATURE as REGROUP
from sync.log.log import Log, LogBusyError, LogSettings, RealDisk
from tidegate.console import DISTRIBUTION, UserError
from tidegate.logs import get_logger

LOG_FOLDER: Final = "log"
REPLICA_FILE: Final = "replica.db"
COMMANDS_FILE: Final = "commands.db"
PLACES_FILE: Final = "places.json"
PUSHED_FILE: Final = "pushed.json"

LINK_FAREWELL_S: Final = 12.0
"""For the link to say goodbye and close: twice its own deadline, and a little."""

IPC_PATH_BYTES_MAX: Final = 107
"""unix(7): a socket's path that is longer cannot be listened on."""

FILES_MAX: Final = 256
"""Descriptors beside devices' connections: log, bus, status page, link and their like."""

_log = get_logger("edge.app")


async def run_gateway(config: EdgeConfig, stop: asyncio.Event, load: Callable[[], EdgeConfig] | None = None) -> None:
    """Runs until `stop`. `load` reads the configuration again, at SIGHUP. Raises UserError where somebody has to do
    something first, and what ended a part that the gateway cannot be without."""
    identity = load_identity(config.data_dir)
    if identity is None:
        raise UserError(
            f"the gateway of {config.data_dir} is not enrolled",
            f"tidegate-edge enroll https://CLOUD --token TOKEN --data {config.data_dir}",
        )
    system, background, seen, notify = SystemClock(), Background(), MessageView(), Notify()
    async with contextlib.AsyncExitStack() as up:
        folder = up.enter_context(contextlib.closing(DataFolder(config.data_dir)))
        pushed = Pushed(config.data_dir / PUSHED_FILE, config)
        _allow_files(pushed.config)
        anchors = Anchors(FolderFile(config.data_dir), system)
        clock = GatewayClock(system, anchors)
        await up.enter_async_context(background.needed("clock", anchors.run()))
        replica = Replica(config.data_dir / REPLICA_FILE, identity.enrolment.project_id)
        up.callback(replica.close)
        commands = CommandQueue(config.data_dir / COMMANDS_FILE)
        up.callback(commands.close)
        log = await _open_log(config, clock)
        up.push_async_callback(log.close)
        hub = _open_hub(config)
        up.push_async_callback(hub.close)
        places = Places(config.data_dir / PLACES_FILE)
        await up.enter_async_context(restarted("places", places.run))
        parts = _parts(config, identity, clock, anchors, replica, commands, places, log, hub, seen, pushed)
        await up.enter_async_context(background.needed("recorder", parts.recorder.run()))
        await up.enter_async_context(background.needed("collector", parts.collector.run()))
        await up.enter_async_context(restarted("resolver", parts.resolver.run))
        await up.enter_async_context(background.needed("presence", parts.presence.run()))

        def begin() -> None:
            if log.accounting().logged:
                parts.presence.begin(parts.listeners)

        await pushed.start(parts.roster, begin)
        up.push_async_callback(parts.roster.close)
        parts.reload.config = pushed.config
        view = GatewayView(parts, seen)
        await up.enter_async_context(background.needed("status sampler", view.sample()))
        status = StatusServer(config.status.host, config.status.port, view)
        up.push_async_callback(status.close)
        await status.start()
        await up.enter_async_context(restarted("courier", parts.courier.run))
        await up.enter_async_context(_linked(parts.link))

        def tell() -> None:
            ports = {listener.name: listener.port for listener in parts.listeners if listener.port}
            folder.tell(Running(os.getpid(), status.url, ports, _endpoint(config)))
            parts.downlink.check_networks()
            _log.info("devices are served", status=status.url, ports=ports)

        parts.reload.done = tell
        if load is not None:
            up.enter_context(rereading(partial(pushed.read, load, "SIGHUP"), stop))
        tell()
        await up.enter_async_context(restarted("pushed configuration", pushed.run))
        _settle_memory()
        _log.info("gateway is up", epoch=f"{log.epoch:016x}")
        if notify.is_heard:
            pulse = Pulse(parts.recorder)
            await up.enter_async_context(
                background.needed("signs of life", notify.run(pulse.is_alive, lambda: summary(view.accounting())))
            )
        notify.tell(READY="1")
        await background.until(stop)
        view.is_stopping = True
        notify.tell(STOPPING="1")
        _log.info("stopping")


def _parts(
    config: EdgeConfig,
    identity: Identity,
    clock: GatewayClock,
    anchors: Anchors,
    replica: Replica,
    commands: CommandQueue,
    places: Places,
    log: Log,
    hub: ZeroMqHub,
    seen: MessageView,
    pushed: Pushed,
) -> Parts:
    """What works on them; nothing runs yet."""
    monotonic_s = asyncio.get_running_loop().time
    collector = Collector(hub.connect(), clock, run=secrets.randbits(63))
    roster = Roster()
    listeners = roster.listeners
    time = Time(clock.true_ms, lambda: anchors.true_error_ms() is not None)
    presence = PresenceRecorder(collector, places, monotonic_s, lambda name: _came(replica, courier, name))
    courier = Courier(commands, Ways(replica.registry, listeners, presence.there_s).to, time)
    seen.onlookers.append(presence.heard)
    shared = Shared(replica.registry, collector, config.data_dir, log.has, clock.true_ms, attendance=presence)

    def make(kind: str, section: ListenerConfig) -> Listener:
        made = make_listener(kind, section, shared)
        made.refusals.watch = partial(seen.add_refused, made.name, made.network_id)
        return made

    pushed.fill(roster, make)
    downlink = GatewayDownlink(replica, listeners, courier)
    sender = Sender(log, log.accept, monotonic_s=monotonic_s)
    recorder = Recorder(hub.connect(), log, anchors.true_received_ms)
    books = GatewayBooks(
        log,
        anchors,
        listeners,
        refused=lambda: refused_records(recorder, collector),
        true_ms=clock.true_ms,
        look_again=sender.look_again,
    )
    link = _link(config, identity, clock, replica, log, sender, downlink, books, pushed)
    courier.report_by(link.report)
    reload = Reload(pushed.config, roster, allow_files=_allow_files)
    pushed.attach(reload, link.tell_configuration)
    return Parts(
        enrolment=identity.enrolment,
        started_ms=clock.steady_ms(),
        clock=clock,
        anchors=anchors,
        link_url=_link_url(config, identity),
        replica=replica,
        log=log,
        hub=hub,
        recorder=recorder,
        collector=collector,
        roster=roster,
        reload=reload,
        pushed=pushed,
        resolver=LocalResolver(
            lambda: replica.registry,
            log.reader("resolver", at="end"),
            hub.connect(),
            seen,
            lambda: any(channel.topic == RESOLVED and channel.readers for channel in hub.channels()),
            anchors=anchors.by_boot,
        ),
        sender=sender,
        downlink=downlink,
        commands=commands,
        courier=courier,
        presence=presence,
        link=link,
    )


def _came(replica: Replica, courier: Courier, name: Name) -> None:
    _, network_id, alias_key, alias = name
    device = replica.registry.device(network_id, alias_key, alias)
    if device is not None:
        courier.device_came(device.id)


async def _open_log(config: EdgeConfig, clock: GatewayClock) -> Log:
    directory = config.data_dir / LOG_FOLDER
    settings = LogSettings(
        max_bytes=config.log.max_bytes,
        segment_bytes=config.log.segment_bytes,
        evict=config.log.evict,
        retain_acked_bytes=config.log.retain_acked_bytes,
        linger_max_ms=config.log.linger_max_ms,
    )
    try:
        return await Log.open(
            directory, settings, disk=RealDisk(), wall_ms=clock.true_ms, new_epoch=lambda: secrets.randbits(63)
        )
    except LogBusyError as error:
        raise UserError(str(error), "end that process, or give this gateway a data folder of its own") from None
    except OSError as error:
        raise UserError(
            f"cannot open the log in {directory}: {error.strerror or error}",
            "see that the disk is there and has room, and that this user may write to it",
        ) from error


def _open_hub(config: EdgeConfig) -> ZeroMqHub:
    endpoint = _endpoint(config)
    path = endpoint.removeprefix("ipc://")
    if path != endpoint and len(os.fsencode(path)) > IPC_PATH_BYTES_MAX:
        raise UserError(
            f"the bus's path is longer than the {IPC_PATH_BYTES_MAX} bytes that a socket's may have: {path}",
            "set bus.endpoint to a shorter one, such as ipc:///run/tidegate.sock",
        )
    topics = (TopicSpec(INBOUND, (CHANNEL,), public=True), TopicSpec(RESOLVED))
    try:
        return ZeroMqHub(topics, endpoint=endpoint)
    except BusError as error:
        raise UserError(str(error), "set bus.endpoint to one that is free") from None


def _link(
    config: EdgeConfig,
    identity: Identity,
    clock: GatewayClock,
    replica: Replica,
    log: Log,
    sender: Sender,
    downlink: GatewayDownlink,
    books: GatewayBooks,
    pushed: Pushed,
) -> LinkClient:
    url = _link_url(config, identity)
    software = f"tidegate-edge {importlib.metadata.version(DISTRIBUTION)}"

    def hello() -> Hello:
        return Hello(
            software,
            log.epoch,
            clock.boot,
            clock.boot_ms(),
            clock.wall_ms(),
            replica.registry.revision,
            (REGROUP, FEATURE_BOOKS, FEATURE_COMMANDS, FEATURE_CONFIGURATION),
            pushed.revision,
        )

    try:
        return LinkClient(
            url,
            token=identity.token,
            hello=hello,
            source=sender,
            downlink=downlink,
            books=books,
            configured=pushed,
            wall_ms=clock.steady_ms,
            random=random.random,
            dial=WebSocketDial(
                url,
                wall_ms=clock.wall_ms,
                true_ms=clock.true_ms,
                ca_file=Path(config.link.ca_file) if config.link.ca_file else None,
                deadlines=Deadlines(),
            ),
            window_bytes_max=config.link.window_bytes,
            bytes_per_s_max=config.link.bytes_per_s_max,
        )
    except OSError as error:
        raise UserError(
            f"link.ca_file {config.link.ca_file}: {error.strerror or error}", "give a PEM file of certificates"
        ) from None


@contextlib.asynccontextmanager
async def _linked(link: LinkClient) -> AsyncIterator[None]:
    """At the end the cloud is told, as far as it listens."""
    stop = asyncio.Event()
    async with restarted("link", lambda: link.run(stop)) as running:
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait((running,), timeout=LINK_FAREWELL_S)


def _endpoint(config: EdgeConfig) -> str:
    return config.bus.endpoint or f"ipc://{config.data_dir.resolve() / 'bus.sock'}"


def _link_url(config: EdgeConfig, identity: Identity) -> str:
    return config.link.url or identity.enrolment.link_url


def _allow_files(config: EdgeConfig) -> None:
    """A connection is a descriptor, and many systems allow 1,024 unless they are asked for more."""
    wanted = FILES_MAX + sum(listener.files_max for _, listener in config.listeners)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    given = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (given, hard))
    except OSError:  # whoever runs the gateway may forbid that
        given = soft
    if given < wanted:
        _log.warning("fewer files may be open than the configuration allows connections", files=given, wanted=wanted)


def _settle_memory() -> None:
    """What a start leaves behind goes back to the system (2 MB), or is not looked through at each collection."""
    gc.collect()
    gc.freeze()
    with contextlib.suppress(AttributeError):  # not every C library has it
        ctypes.CDLL(None).malloc_trim(0)
