"""A cloud and a gateway's log for tests, over real sockets: uvicorn with the ASGI adapter, a relay that breaks."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocols.block import read_head
from protocols.limits import LINK_FRAME_BYTES_MAX
from protocols.messages import Command, Lane
from sync.link.asgi import LinkApp
from sync.link.client import LinkClient
from sync.link.frames import FEATURE_BOOKS, FEATURE_COMMANDS, CommandKept, CommandProgress
from sync.link.limits import Deadlines
from sync.link.ports import BlockSource, Books, CloudBooks, ConfigurationFeed, CreditFeed, Parcel, Room
from sync.link.regroup import FEATURE
from sync.link.server import GatewaySession
from sync.link.tokens import Claims, sign, verify
from sync.registry import RegistryChange
from tests.sync.link.blocks import hello

QUICK = Deadlines(open_s=5, greeting_s=1, request_s=1, probe_every_s=0.2, probe_s=1, idle_s=2, farewell_s=1)
KEY = Ed25519PrivateKey.generate()


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Cloud:
    """What the platform gives a session. `before` is called with the blocks before they are stored."""

    def __init__(self) -> None:
        self.stored: dict[tuple[int, int], bytes] = {}
        self.arrivals = 0
        self.lanes: list[Lane] = []
        self.sessions: list[GatewaySession] = []
        self.before: Callable[[list[bytes]], Awaitable[None]] | None = None
        self.rejects: list[Exception] = []
        self.snapshot = RegistryChange("demo", 0, 1)
        self.pushed: asyncio.Queue[RegistryChange] = asyncio.Queue()
        self.asked: list[int] = []
        self.following = 0
        self.to_send: asyncio.Queue[Command | CommandKept] = asyncio.Queue()
        self.progressed: asyncio.Queue[CommandProgress] = asyncio.Queue()
        self.deadlines = QUICK
        self.books: CloudBooks | None = None
        self.credit: CreditFeed | None = None
        self.configuration: ConfigurationFeed | None = None
        self.app = LinkApp(self.authenticate, self.open_session)

    async def authenticate(self, token: str) -> Claims:
        if self.rejects:
            raise self.rejects.pop(0)
        return verify(token, [KEY.public_key()], now_s=int(time.time()))

    @contextlib.asynccontextmanager
    async def open_session(self, claims: Claims) -> AsyncIterator[GatewaySession]:
        session = GatewaySession(
            project_id=claims.project_id,
            gateway_id=claims.gateway_id,
            intake=self,
            registry=self,
            commands=self,
            books=self.books,
            credit=self.credit,
            configuration=self.configuration,
            deadlines=self.deadlines,
        )
        self.sessions.append(session)
        yield session

    async def accept(self, lane: Lane, blocks: list[bytes]) -> None:
        if self.before is not None:
            await self.before(blocks)
        self.lanes.append(lane)
        for block in blocks:
            self.arrivals += 1
            head = read_head(block)
            self.stored[head.epoch, head.first_seq] = block

    async def changes(self, base_revision: int) -> AsyncIterator[RegistryChange]:
        self.asked.append(base_revision)
        self.following += 1
        try:
            if base_revision == 0:
                yield self.snapshot
            while True:
                yield await self.pushed.get()
        finally:
            self.following -= 1

    async def commands(self) -> AsyncIterator[Command | CommandKept]:
        while True:
            yield await self.to_send.get()

    async def progress(self, progress: CommandProgress) -> None:
        self.progressed.put_nowait(progress)
        self.to_send.put_nowait(CommandKept(progress.command_id, progress.state))


@contextlib.asynccontextmanager
async def serving(app: object, *, cert: Path | None = None, key: Path | None = None) -> AsyncIterator[int]:
    """Runs an ASGI application under uvicorn on a free loopback port."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        lifespan="off",
        log_level="critical",
        ws_max_size=LINK_FRAME_BYTES_MAX,
        ws_per_message_deflate=False,
        ssl_certfile=cert,
        ssl_keyfile=key,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:  # uvicorn has no event for it
            await asyncio.sleep(0.01)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listener.close()


class Log:
    """A LinkClient's source over blocks that are there from the start."""

    def __init__(self, made: list[bytes]) -> None:
        self.made = made
        self.waiting = {(head.epoch, head.first_seq): block for block in made for head in [read_head(block)]}
        self.at = 0
        self.lane = Lane.LIVE
        self.returns = 0
        self.empty = asyncio.Event()
        self.spoil: Callable[[bytes], bytes] = lambda block: block

    def begin(self, wake: Callable[[], None]) -> None:
        self.give_back()

    def take(self, room: Room) -> Parcel | None:
        bytes_max = room.bytes_max if self.lane is Lane.LIVE else room.backfill_bytes_max
        taken: list[bytes] = []
        while bytes_max and self.at < len(self.made) and len(taken) < room.blocks_max:
            block = self.made[self.at]
            if taken and sum(map(len, taken)) + len(block) > bytes_max:
                break
            head = read_head(block)
            if (head.epoch, head.first_seq) in self.waiting:
                taken.append(self.spoil(block))
            self.at += 1
        return Parcel(self.lane, taken) if taken else None

    def accepted(self, epoch: int, first_seq: int, end_seq: int) -> None:
        while first_seq < end_seq:
            first_seq = read_head(self.waiting.pop((epoch, first_seq))).end_seq
        if not self.waiting:
            self.empty.set()

    def give_back(self) -> None:
        self.at = 0
        self.returns += 1

    async def end(self) -> None:
        pass


class Gateway:
    """A Downlink that remembers."""

    def __init__(self) -> None:
        self.changes: asyncio.Queue[RegistryChange] = asyncio.Queue()
        self.commands: asyncio.Queue[Command] = asyncio.Queue()
        self.confirmed: list[bool] = []
        self.kept: asyncio.Queue[CommandKept] = asyncio.Queue()
        self.raises: list[Exception] = []

    async def registry_changed(self, change: RegistryChange) -> None:
        if self.raises:
            raise self.raises.pop(0)
        self.changes.put_nowait(change)

    async def command_arrived(self, command: Command) -> None:
        self.commands.put_nowait(command)

    def linked(self, *, confirmed: bool) -> None:
        self.confirmed.append(confirmed)

    def command_kept(self, kept: CommandKept) -> None:
        self.kept.put_nowait(kept)


def token(now_s: int) -> str:
    return sign(KEY, gateway_id="quay-1", project_id="demo", now_s=now_s)


def client(
    port: int,
    log: BlockSource,
    *,
    downlink: Gateway | None = None,
    token: Callable[[int], str] = token,
    wall_ms: Callable[[], int] = wall_ms,
    ca_file: Path | None = None,
    scheme: str = "ws",
    deadlines: Deadlines = QUICK,
    revision: int = 0,
    books: Books | None = None,
    bytes_per_s_max: int = 0,
) -> LinkClient:
    return LinkClient(
        f"{scheme}://127.0.0.1:{port}/link/v1",
        token=token,
        hello=lambda: hello(
            features=(FEATURE, FEATURE_COMMANDS, *(() if books is None else (FEATURE_BOOKS,))), revision=revision
        ),
        source=log,
        downlink=downlink or Gateway(),
        books=books,
        wall_ms=wall_ms,
        random=lambda: 0.1,
        ca_file=ca_file,
        bytes_per_s_max=bytes_per_s_max,
        deadlines=deadlines,
    )


@contextlib.asynccontextmanager
async def linking(link: LinkClient) -> AsyncIterator[LinkClient]:
    stop = asyncio.Event()
    task = asyncio.create_task(link.run(stop))
    try:
        yield link
    finally:
        stop.set()
        async with asyncio.timeout(10):
            await task


async def until(holds: Callable[[], bool], *, timeout_s: float = 15.0) -> None:
    """For what no event tells."""
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.01)


class Relay:
    """A TCP relay in front of the cloud that cuts, or goes silent without closing."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []
        self.cut_after: list[int] = []
        """For each connection to come, upward bytes after which it is cut off."""
        self.silent = False
        """Reads on, and passes nothing on."""
        self.deaf = False
        """Reads no more, so that what is written piles up at the writer."""
        self.connections = 0
        self._over = asyncio.Event()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        server = await asyncio.start_server(self._relay, sock=listener, limit=4096)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            self._over.set()
            for writer in self._writers:
                writer.transport.abort()
            await server.wait_closed()

    async def _relay(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        self.connections += 1
        far_in, far_out = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [near_out, far_out]
        left = self.cut_after.pop(0) if self.cut_after else 1 << 60
        await asyncio.gather(self._pass(near_in, far_out, left), self._pass(far_in, near_out, 1 << 60))
        for writer in (near_out, far_out):
            writer.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, left: int) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                if self.silent:
                    continue
                if self.deaf:
                    await self._over.wait()
                sink.write(data[:left])
                await sink.drain()
                left -= len(data)
                if left <= 0:
                    for writer in self._writers:
                        writer.transport.abort()
                    return
            sink.close()


def certificate(folder: Path, *, expired: bool = False) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key, as PEM files."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tidegate test")])
    now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=expired)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_file, key_file
