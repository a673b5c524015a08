"""One embedded engine: started or adopted, kept running, stopped."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from cloud.engines import drop
from cloud.engines.access import Access, is_free, with_free_port
from cloud.engines.confinement import REMEDY, Confinement, account_for, hand_over, readable
from cloud.engines.logfile import rotate, tail
from cloud.engines.ownership import Ownership
from cloud.engines.process import EngineProcess, adopt, find, spawn
from cloud.engines.program import NotReadyError, Program, SilentError
from cloud.engines.reach import ASK_AGAIN_S
from cloud.engines.settings import (
    HOST,
    KILL_S_MAX,
    LOOK_EVERY_S,
    ORPHANS_LEAVE_S,
    PING_S,
    PROGRESS_EVERY_S,
    RECOVERY_S_MAX,
    RESTART_DELAY_S,
    SILENT_S_MAX,
    START_ATTEMPTS_MAX,
    STEADY_S,
    STOP_S_MAX,
    Progress,
)
from tidegate.console import UserError
from tidegate.logs import get_logger

logger = get_logger("cloud.engines")


class EndedError(Exception):
    """The engine's process ended before it was ready. The text is what it said last."""


class EmbeddedEngine:
    """An engine on `directory`, which holds:

    access.json     its port and credentials
    *.lock          who uses and who owns it
    data/           the engine's own
    install/        a copy of its programs, where the installation cannot be read by the engine's user
    """

    def __init__(self, program: Program, directory: Path, log: Path, configured_port: int, progress: Progress) -> None:
        self._program = program
        self._directory = directory
        self._data = directory / "data"
        self._access_path = directory / "access.json"
        self._log = log
        self._configured_port = configured_port
        self._progress = progress
        self._access: Access | None = None
        self._ownership: Ownership | None = None
        self._process: EngineProcess | None = None
        self._left_alone = False
        """An engine of an earlier start was found, and could not be used; whoever can tell why may end it."""
        self._supervisor: asyncio.Task[None] | None = None
        self._told_at = 0.0

    @property
    def url(self) -> str:
        assert self._access is not None, "start() gives it"
        return self._program.url(self._access)

    async def start(self) -> None:
        """Returns when the engine is ready: brought up by us, or by another process that owns it. Raises UserError."""
        ownership = self._open()
        try:
            async with asyncio.timeout(RECOVERY_S_MAX) as deadline:
                while True:
                    if ownership.join():
                        if ownership.own():
                            deadline.reschedule(None)  # from here on, each step has its own
                            await self._bring_up(keep_port=False)
                            break
                        if await self._answers():
                            break
                    self._tell("waiting for the process that owns it")
                    await asyncio.sleep(ASK_AGAIN_S[1])
        except TimeoutError:
            owner = self._directory / "owner.lock"
            raise UserError(
                f"{self._program.name}: another process owns it, and it does not get ready",
                f"see which one has {owner} open, and end that",
            ) from None
        assert self._access is not None  # both ways out of the loop set it
        self._progress(self._program.name, f"embedded, {HOST}:{self._access.port}")

    async def supervise(self) -> None:
        """Runs until cancelled: brings the engine back when it dies, and takes over from an owner that is gone."""
        assert self._ownership is not None, "start() comes first"
        self._supervisor = asyncio.current_task()
        loop = asyncio.get_running_loop()
        ready_at, deaths = loop.time(), 0
        while True:
            if not self._ownership.own():
                await asyncio.sleep(LOOK_EVERY_S)
                continue
            name = self._program.name
            if self._process is None:
                await self._bring_back(deaths)
                logger.info("engine taken over from an owner that is gone", engine=name)
            elif await self._process.wait(LOOK_EVERY_S):
                deaths = 1 if loop.time() - ready_at > STEADY_S else deaths + 1
                code, self._process = self._process.exit_code, None
                logger.warning("engine ended", engine=name, exit_code=code, last_words=tail(self._log, 1))
                await self._bring_back(deaths)
                logger.warning("engine is back", engine=name, port=self._port)
            else:
                rotate(self._log)
                continue
            ready_at = loop.time()

    async def stop(self) -> None:
        """Stops the engine, unless another process uses it, which then becomes its owner."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
            self._supervisor = None
        if self._ownership is None:
            return
        ownership, self._ownership = self._ownership, None
        try:
            if ownership.leave():
                await self._end()
        finally:
            if self._process is not None:
                self._process.close()
                self._process = None
            ownership.close()

    def _open(self) -> Ownership:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._ownership = Ownership(self._directory)
        return self._ownership

    async def _answers(self) -> bool:
        """True if the engine that another process owns is ready for us."""
        access = Access.load(self._access_path)
        if access is None:
            return False
        try:
            await self._program.ping(access)
        except (NotReadyError, UserError):
            return False  # its port may be another program's by now; the owner will write down a new one
        self._access = access
        return True

    async def _bring_up(self, *, keep_port: bool) -> None:
        """To be called by the owner. Adopts the engine or starts it, until it is ready. Raises UserError."""
        for _ in range(START_ATTEMPTS_MAX):
            process = await self._adopted()
            adopted = process is not None
            if process is None:
                process = await self._started(keep_port)
            self._process = process
            try:
                await self._until_ready(process, adopted)
                self._left_alone = False
                return
            except UserError:
                if adopted:
                    self._left_alone, self._process = True, None
                    process.close()
                raise
            except EndedError as error:
                self._process = None
                if process.exit_code == drop.NOT_PERMITTED:
                    raise UserError(f"{self._program.name} cannot be started as root here: {error}", REMEDY) from None
                contested = adopted or not is_free(self._port) or find(self._data, self._program.process_name)
                if not contested:
                    break  # it has its own reason, and will have it again
        raise UserError(
            f"{self._program.name} ended while it started: {tail(self._log)}",
            f"see {self._log} for what it says before",
        )

    @property
    def _port(self) -> int:
        assert self._access is not None
        return self._access.port

    async def _adopted(self) -> EngineProcess | None:
        """The engine that already runs here, left by an owner that was killed; without one, nothing else runs here
        either."""
        loop = asyncio.get_running_loop()
        patient_until = loop.time() + ORPHANS_LEAVE_S
        program = self._program
        while pids := find(self._data, program.process_name):
            leader = program.leader(self._data, pids)
            process = None if leader is None else adopt(leader, self._data, program.process_name)
            if process is not None:
                self._access = Access.load(self._access_path)
                if self._access is None:
                    process.close()
                    raise UserError(
                        f"{program.name} runs in {self._data} (process {leader}), and {self._access_path} is missing",
                        f"restore the file, or end that process: kill {leader}",
                    )
                self._tell(f"found running, process {leader}")
                return process
            if loop.time() > patient_until:
                await self._kill(pids)
            self._tell("waiting for processes of an earlier start to end")
            await asyncio.sleep(ASK_AGAIN_S[0])
        return None

    async def _kill(self, pids: list[int]) -> None:
        """Backends without their postmaster, which keep a new one from starting. They hold nothing that recovery does
        not mend."""
        for pid in pids:
            process = adopt(pid, self._data, self._program.process_name)
            if process is not None:
                process.send(signal.SIGKILL)
                ended = await process.wait(KILL_S_MAX)
                process.close()
                if not ended:
                    raise UserError(
                        f"{self._program.name}: process {pid} of an earlier start does not end, even when killed",
                        "look at the disk that it waits for",
                    )

    async def _started(self, keep_port: bool) -> EngineProcess:
        """A new process of the engine, not ready yet."""
        self._tell("starting")
        access = self._chosen_access(keep_port)
        self._access = access
        account = account_for(self._data)
        installed = await asyncio.to_thread(readable, account, self._program.installed(), self._directory / "install")
        await self._program.create(self._data, account, installed, access)
        hand_over(self._data, account)
        confinement = Confinement.of(account, self._data, installed)
        self._program.configure(self._data, confinement, access)
        rotate(self._log)
        assert self._ownership is not None
        command = confinement.command(self._program.argv(confinement, access))
        return spawn(command, confinement.environment(), self._log, self._ownership.descriptor)

    def _chosen_access(self, keep_port: bool) -> Access:
        kept = Access.load(self._access_path)
        if kept is None and self._data.exists() and any(self._data.iterdir()):
            raise UserError(
                f"{self._access_path} is missing, and with it the credentials of {self._data}",
                "restore it from a backup, or choose a new data_dir",
            )
        if keep_port and kept is not None:
            # Its clients know it by this port.
            if not is_free(kept.port):
                raise UserError(f"{self._program.name}: another program has taken port {kept.port}", "end that program")
            return kept
        access = with_free_port(kept, self._configured_port)
        if access != kept:
            access.store(self._access_path)
        return access

    async def _until_ready(self, process: EngineProcess, adopted: bool) -> None:
        """Raises EndedError, or UserError if it does not get ready or does not let us in."""
        assert self._access is not None
        loop = asyncio.get_running_loop()
        began = spoke_at = loop.time()
        delay, longest = ASK_AGAIN_S
        while True:
            try:
                await self._program.ping(self._access)
                return
            except SilentError as error:
                reason = str(error)
            except NotReadyError as error:
                reason, spoke_at = str(error), loop.time()
            except UserError as error:
                # Ours ends if the port is another server's; then it is not our credentials that were refused.
                if not adopted and await process.wait(PING_S):
                    raise EndedError(tail(self._log, 1)) from None
                raise UserError(error.message, f"see whether {self._access_path} belongs to {self._data}") from None
            now = loop.time()
            if now - began > RECOVERY_S_MAX or now - spoke_at > SILENT_S_MAX:
                origin = ", left by an earlier start," if adopted else ""
                raise UserError(
                    f"{self._program.name} (process {process.pid}){origin} does not get ready: {reason}",
                    f"see {self._log}; to start it anew: kill -9 {process.pid}",
                )
            self._tell(f"not ready yet ({reason}), {now - began:.0f} s")
            if await process.wait(delay):
                raise EndedError(tail(self._log, 1))
            delay = min(delay * 2, longest)

    async def _bring_back(self, deaths: int) -> None:
        """Tries until it is ready; each new reason for a failure is logged once."""
        logged = ""
        while True:
            await asyncio.sleep(RESTART_DELAY_S[min(max(deaths - 1, 0), len(RESTART_DELAY_S) - 1)])
            try:
                await self._bring_up(keep_port=True)
            except (UserError, OSError) as error:
                deaths += 1
                if str(error) != logged:
                    logged = str(error)
                    logger.error("engine cannot be brought back yet", engine=self._program.name, reason=logged)
                await self._abandon()
            else:
                return

    async def _abandon(self) -> None:
        """Ends a process that did not get ready, before the next try."""
        if self._process is not None:
            self._process.send(signal.SIGKILL)
            await self._process.wait(KILL_S_MAX)
            self._process = None

    async def _end(self) -> None:
        """To be called by the last user, who owns it."""
        if self._left_alone:
            return
        process = self._process
        if process is None:
            # Not started by us, and its owner was killed.
            pids = find(self._data, self._program.process_name)
            leader = self._program.leader(self._data, pids)
            process = None if leader is None else adopt(leader, self._data, self._program.process_name)
        if process is None:
            return
        first, second = self._program.stop_signals
        for number, wait_s in ((first, STOP_S_MAX), (second, KILL_S_MAX), (signal.SIGKILL, KILL_S_MAX)):
            process.send(number)
            if await process.wait(wait_s):
                return
            logger.warning("engine does not stop", engine=self._program.name, signal=number.name, waited_s=wait_s)
        process.close()

    def _tell(self, text: str) -> None:
        """Not more often than people can read."""
        now = asyncio.get_running_loop().time()
        if now - self._told_at >= PROGRESS_EVERY_S:
            self._told_at = now
            self._progress(self._program.name, text)
