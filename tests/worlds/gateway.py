"""A gateway as production wires it (edge/app.py), on a simulated machine: disk, clock, way to the cloud, devices."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path as FilePath
from typing import Final

from edge.anchors import Anchors
from edge.background import Background, restarted
from edge.books import GatewayBooks
from edge.listeners.clock import GatewayClock
from edge.listeners.collector import Collector
from edge.listeners.filling import Waiter
from edge.recorder import Recorder
from edge.sender import Sender
from protocols.messages import Command, Gap, Origin
from sync.link.client import LinkClient
from sync.link.frames import FEATURE_BOOKS, CommandKept, Hello
from sync.link.regroup import FEATURE as REGROUP
from sync.log.accounting import LogAccounting
from sync.log.log import Log, LogSettings
from sync.log.settings import STATE_BYTES
from sync.registry import RegistryChange
from tests.worlds.clocks import MachineClock
from tests.worlds.devices import Name
from tests.worlds.disk import FOLDER, WorldDisk
from tests.worlds.edge_bus import EdgeBus
from tests.worlds.gateway_book import GatewayBook
from tests.worlds.laws import Laws
from tests.worlds.loop import Process, SimulatedLoop
from tests.worlds.network import Path, die
from tests.worlds.trace import Trace

SEGMENT_BYTES: Final = 8 * 1024
"""A world's messages fill some of them."""

FAREWELL_S: Final = 12.0
"""For the link to say goodbye and close."""


DEFECTS: Final = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, TypeError)
"""What no disk, link or clock makes of a right program."""


class Gateway:
    """One site. What is durable stays here; each run of the gateway's process is a Run."""

    def __init__(self, loop: SimulatedLoop, rng: random.Random, name: str, laws: Laws, trace: Trace) -> None:
        self.loop = loop
        self.random = rng
        self.name = name
        self.laws = laws
        self.trace = trace
        self.book = GatewayBook(name, laws, trace)
        self.disk = WorldDisk(rng.getrandbits(32), rng, self.book.on_block)
        self.disk.on_remove = self.book.removed
        self.clock = MachineClock(lambda: loop.now, rng)
        self.path = Path(loop, name, rng, trace)
        self.settings = LogSettings(
            segment_bytes=SEGMENT_BYTES,
            max_bytes=STATE_BYTES + rng.choice((5, 8, 16)) * SEGMENT_BYTES,
            linger_max_ms=2.0,
            evict=rng.random() < 0.8,
            retain_acked_bytes=rng.choice((0, 0, 2 * SEGMENT_BYTES)),
        )
        self.bus_loses = 0.0
        self.anchors = MemoryFile(self.disk)
        self._image: tuple[dict[FilePath, bytes], bytes | None] | None = None
        self.life: Life | None = None
        self.lives = 0

    def boot(self) -> None:
        if self.life is None:
            self.lives += 1
            self.life = Life(self, self.lives)

    def cut_power_at(self, changes: int) -> None:
        """Power goes in the middle of a change of the disk, after that many more."""
        life = self.life
        if life is None:
            return

        def cut() -> None:
            if life.process.alive:
                life.process.kill()
                self.loop.outside(0.0, self._crash, life, 1.0)

        self.disk.on_power_cut = cut
        self.disk.cut_power_after(changes)

    def _crash(self, life: Life, back_s: float) -> None:
        if self.life is life:
            self.crash(power=True, back_s=back_s)

    def crash(self, *, power: bool, back_s: float) -> None:
        """Nothing of the process runs any more. Calls that its threads were in are done, not done or torn."""
        life = self.life
        if life is None:
            return
        self.life = None
        self.trace.add(self.name, "power cut" if power else "killed")
        calls = list(life.process.calls)
        life.process.kill()
        self.disk.on_power_cut = lambda: None
        if power:
            self.disk.lose_memory()
        self.disk.is_killed = not power
        for call in calls:
            self.disk.cut_power_after(self.random.randrange(4))
            with contextlib.suppress(OSError):
                call()
        self.disk.is_killed = False
        self.disk.restart()
        for connection in self.path.connections:
            if connection.gateway.owner is life.process:
                die(connection.gateway, told=not power)
        if power:
            self.clock.reboot(forgets_time=self.random.random() < 0.5)
            if self.clock.state() != 2:
                self.loop.outside(5 + 30 * self.random.random(), self.clock.synchronize)
        self.loop.outside(back_s, self.boot)

    @property
    def drained(self) -> bool:
        """Whether nothing waited in the log when it was looked at."""
        account = None if self.life is None else self.life.account
        return account is not None and not account.pending and not account.gaps_untold

    @property
    def standing(self) -> str:
        """For people."""
        return "down" if self.life is None else str(self.life.account)

    def keep_image(self) -> None:
        """As somebody who copies the disk of a running machine."""
        self._image = self.disk.image(), self.anchors.content

    def restore_image(self) -> None:
        """The machine is off, and the copy is put in its place. What is only on the disk that is gone, nobody can tell
        of any more."""
        if self._image is not None:
            self.trace.add(self.name, "disk restored")
            image, self.anchors.content = self._image
            self.disk.restore(image)
            self.book.excuse_but(self.disk.blocks())

    def flip_tail(self) -> None:
        """One bit of the newest block rots."""
        blocks = self.disk.blocks()
        if blocks:
            path, start, head = blocks[-1]
            self._flip(path, start + self.random.randrange(head.size))

    def flip(self) -> None:
        """One bit rots, anywhere in what is written."""
        paths = sorted(path for path in self.disk.files if path.suffix in (".seg", ".0", ".1"))
        path = self.random.choice(paths) if paths else None
        used = len(bytes(self.disk.files[path]).rstrip(b"\0")) if path is not None else 0
        if path is None or not used:
            return
        self._flip(path, self.random.randrange(used))

    def _flip(self, path: FilePath, offset: int) -> None:
        if path.suffix != ".seg":
            self.book.state_harmed = True
        for at, start, head in self.disk.blocks():
            if at == path and start <= offset < start + head.size:
                self.book.harm(head.epoch, head.first_seq, head.end_seq)
        self.disk.flip(path, offset)
        self.trace.add(self.name, "bit flipped", path.name, offset)

    def listener(self) -> Life | None:
        """What devices find."""
        life = self.life
        return life if life is not None and life.listening and not life.process.stopped else None

    def ended(self, life: Life, reason: str) -> None:
        """The process ended by itself: the service manager starts it again."""
        self.trace.add(self.name, "ended", reason)
        if self.life is life:
            self.life = None
            life.process.kill()
            self.disk.restart()
            self.loop.outside(2.0, self.boot)


class Life:
    """One run of the gateway's process."""

    bus: EdgeBus
    anchors: Anchors
    log: WatchedLog
    collector: Collector
    recorder: Recorder
    sender: Sender
    link: LinkClient
    account: LogAccounting | None = None
    """As it was looked at last."""

    def __init__(self, gateway: Gateway, number: int) -> None:
        self.gateway = gateway
        self.listening = False
        self.process = Process(gateway.loop, f"{gateway.name}.{number}", gateway.disk.call_s)
        self.stop = asyncio.Event()
        self.process.run(self._run())

    async def _run(self) -> None:
        gateway = self.gateway
        try:
            async with contextlib.AsyncExitStack() as up:
                await self._start(up)
                gateway.trace.add(gateway.name, "up, epoch", f"{self.log.epoch:x}")
                self.listening = True
                try:
                    await self.background.until(self.stop)
                finally:
                    self.listening = False
        except Exception as error:  # noqa: BLE001  # whatever ends a process
            if isinstance(error, DEFECTS):
                gateway.laws.broken("nothing fails unseen", f"{gateway.name}: {error!r}")
            gateway.ended(self, f"{type(error).__name__}: {error}")
        else:
            gateway.ended(self, "stopped")

    async def _start(self, up: contextlib.AsyncExitStack) -> None:
        gateway, rng = self.gateway, self.gateway.random
        self.background = Background()
        self.anchors = Anchors(gateway.anchors, gateway.clock)
        clock = GatewayClock(gateway.clock, self.anchors)
        await up.enter_async_context(self.background.needed("clock", self.anchors.run()))
        self.log = await WatchedLog.open(
            FOLDER,
            gateway.settings,
            disk=gateway.disk,
            wall_ms=clock.true_ms,
            new_epoch=lambda: rng.getrandbits(62) + 1,
        )
        self.log.on_gaps_kept = gateway.book.gaps_kept
        up.push_async_callback(self.log.close)
        bus = self.bus = EdgeBus(gateway.loop, lambda: rng.random() < gateway.bus_loses)
        self.recorder = Recorder(bus, self.log, self.anchors.true_received_ms)
        self.collector = Collector(bus, clock, run=rng.getrandbits(63))
        self.sender = Sender(self.log, self._accepted, monotonic_s=gateway.loop.time)
        books = GatewayBooks(
            self.log,
            self.anchors,
            (),
            refused=lambda: self.recorder.counts.refused,
            true_ms=clock.true_ms,
            look_again=self.sender.look_again,
        )
        self.link = LinkClient(
            "world",
            token=lambda now_s: gateway.name,
            hello=self._hello,
            source=self.sender,
            downlink=Downlink(),
            wall_ms=clock.steady_ms,
            random=rng.random,
            dial=gateway.path.dial,
            books=books,
        )
        await up.enter_async_context(self.background.needed("recorder", self.recorder.run()))
        await up.enter_async_context(self.background.needed("collector", self.collector.run()))
        await up.enter_async_context(_linked(self.link))

    def _hello(self) -> Hello:
        clock = self.gateway.clock
        return Hello("world", self.log.epoch, clock.boot, clock.boot_ms(), clock.wall_ms(), 0, (REGROUP, FEATURE_BOOKS))

    def _accepted(self, epoch: int, first_seq: int, end_seq: int) -> None:
        self.gateway.book.accepted(epoch, first_seq, end_seq)
        self.log.accept(epoch, first_seq, end_seq)

    def receive(self, origin: Origin, payloads: list[bytes], waiter: Waiter, tokens: Sequence[bytes]) -> None:
        """A device's read, as its listener gives it to the collector."""
        self.process.do(self.collector.add, origin, payloads, waiter, tokens)

    def acknowledged(self, names: list[Name]) -> None:
        self.gateway.book.acknowledged(names)


@contextlib.asynccontextmanager
async def _linked(link: LinkClient) -> AsyncIterator[None]:
    """At the end the cloud is told, as far as it listens."""
    stop = asyncio.Event()
    async with restarted("link", lambda: link.run(stop)) as running:
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait((running,), timeout=FAREWELL_S)


class WatchedLog(Log):
    """Says which losses it takes for known in the cloud."""

    on_gaps_kept: Callable[[Sequence[Gap]], None]

    def gaps_kept(self, gaps: Iterable[Gap], has: Iterable[tuple[int, int, int]] = ()) -> None:
        gaps = list(gaps)
        self.on_gaps_kept(gaps)
        super().gaps_kept(gaps, has)


class MemoryFile:
    """The AnchorFile of edge/anchors.py, on a gateway's disk."""

    def __init__(self, disk: WorldDisk) -> None:
        self.content: bytes | None = None
        self._disk = disk

    def read(self) -> bytes | None:
        return self.content

    def write(self, data: bytes) -> None:
        if self._disk.full or self._disk.random.random() < self._disk.write_trouble:
            raise OSError(errno.EIO, "simulated")
        self.content = data

    def set_aside(self) -> None:
        self.content = None


class Downlink:
    """The gateway's registry is of no interest here: the cloud resolves everything."""

    async def registry_changed(self, change: RegistryChange) -> None:
        pass

    async def command_arrived(self, command: Command) -> None:
        raise AssertionError("nobody sends commands")

    def linked(self, *, confirmed: bool) -> None:
        pass

    def command_kept(self, kept: CommandKept) -> None:
        raise AssertionError("nobody sends commands")
