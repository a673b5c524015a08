"""What a scenario may touch of a running site: the link, by its proxy's control port, and the processes of the demo."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Final

import msgspec

from firmware_sim.demo.process import command_line
from firmware_sim.faults.control import ControlError, command
from firmware_sim.faults.fault import Fault, ProxyState
from firmware_sim.run_folder import read_state

NO_PROXY: Final = "no link proxy is known (--control-port)"
NO_PROCESSES: Final = "only the demo's processes are known, and started again (make run)"


class NotPossibleError(Exception):
    """This cannot be done here; why."""


class Site:
    """`control_port`: of the link proxy, 0 where none is known. `run_folder`: of the demo, None where it is another
    site."""

    def __init__(self, *, control_port: int, run_folder: Path | None, by: str) -> None:
        self._control_port = control_port
        self._run_folder = run_folder
        self._by = by
        self._paused: dict[str, int] = {}

    async def break_link(self, fault: Fault) -> None:
        """For as long as the fault says; it ends by itself, also if this process does. Raises NotPossibleError."""
        if not self._control_port:
            raise NotPossibleError(NO_PROXY)
        state = await self._command(msgspec.structs.replace(fault, by=self._by))
        if state.by != self._by:
            raise NotPossibleError(f"the link is broken already, by {state.by or 'somebody else'}")

    async def mend_link(self) -> None:
        """Ends a fault of ours."""
        if self._control_port:
            await self._command(Fault(by=self._by))

    def kill(self, part: str) -> None:
        """Raises NotPossibleError."""
        os.kill(self._pid(part), signal.SIGKILL)

    def pause(self, part: str) -> None:
        """Raises NotPossibleError."""
        pid = self._pid(part)
        os.kill(pid, signal.SIGSTOP)
        self._paused[part] = pid

    def resume(self, part: str) -> None:
        """If it is paused by us, and there still."""
        pid = self._paused.pop(part, None)
        if pid is not None and self._is_ours(pid):
            os.kill(pid, signal.SIGCONT)

    async def leave(self) -> None:
        """Nothing stays broken that was broken here."""
        for part in list(self._paused):
            self.resume(part)
        with contextlib.suppress(NotPossibleError):  # a proxy that is gone breaks nothing
            await self.mend_link()

    async def _command(self, fault: Fault) -> ProxyState:
        try:
            return await command(self._control_port, fault, replace=False)
        except ControlError as error:
            raise NotPossibleError(str(error)) from None

    def _pid(self, part: str) -> int:
        """As of now: the demo starts again what ends."""
        demo = None if self._run_folder is None else read_state(self._run_folder)
        if demo is None or part not in demo.pids:
            raise NotPossibleError(NO_PROCESSES)
        pid = demo.pids[part]
        if not self._is_ours(pid):
            raise NotPossibleError(f"the {part} is not running")
        return pid

    def _is_ours(self, pid: int) -> bool:
        """The system may have given the number to somebody else's process since."""
        return self._run_folder is not None and f"{self._run_folder.resolve()}/" in command_line(pid)
