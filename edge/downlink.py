"""What the cloud sends: changes of the registry into the replica, commands to devices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from edge.listeners.listener import Listener
from edge.listeners.way import CommandRefusedError, DeviceAbsentError, DeviceGoneError
from edge.replica import Replica
from protocols.messages import Command, CommandState
from sync.link.frames import CommandKept, CommandProgress
from sync.registry import RegistryChange
from tidegate.logs import get_logger

COMMANDS_MAX: Final = 256
"""Under way at a time; beyond it a command fails at once, and the cloud is told why."""

REPORT_EVERY_S: Final = 1.0
REPORTS_MAX: Final = 300
"""A report is offered to the link once a second for five minutes; then the cloud learns by the deadline that nothing
is known of the command."""

_log = get_logger("edge.downlink")


class GatewayDownlink:
    """The link's Downlink. A command goes the first way there is to its device: *delivered* is said when the device's
    protocol acknowledged it, and not sooner."""

    def __init__(self, replica: Replica, listeners: Sequence[Listener], *, true_ms: Callable[[], int]) -> None:
        """`true_ms`: Unix milliseconds by the cloud's clock, which deadlines go by, whatever this machine's shows."""
        self._replica = replica
        self._listeners = listeners
        self._true_ms = true_ms
        self._report: Callable[[CommandProgress], bool] | None = None
        self._warned: set[str] = set()
        self._under_way: set[asyncio.Task[None]] = set()

    def report_by(self, report: Callable[[CommandProgress], bool]) -> None:
        """`report`: the link's, which comes to be after this."""
        self._report = report

    async def registry_changed(self, change: RegistryChange) -> None:
        await self._replica.apply(change)
        for listener in self._listeners:
            listener.recheck()
        self.check_networks()

    def check_networks(self) -> None:
        """Warns, once, of each listener whose network the registry does not have: nobody can log in there, and
        what comes is of no device."""
        for listener in self._listeners:
            network = listener.network_id
            if self._replica.has_network(network):
                self._warned.discard(network)
            elif network not in self._warned:
                self._warned.add(network)
                project = self._replica.registry.project_id
                reason = f"network {network} is not in project {project}"
                _log.warning("network is not known", listener=listener.name, reason=reason)

    async def command_arrived(self, command: Command) -> None:
        task = asyncio.create_task(self._carry_out(command), name=f"command {command.id}")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def linked(self, *, confirmed: bool) -> None:
        """Reports that could not be sent are tried again by whoever has them."""

    def command_kept(self, kept: CommandKept) -> None:
        """Not asked for: nothing is kept beyond the report."""

    async def close(self) -> None:
        """Gives up what is under way: the cloud has the commands, and sends them again."""
        for task in list(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _carry_out(self, command: Command) -> None:
        state, text = await self._deliver(command)
        _log.info("command", id=command.id, name=command.name, state=state.value, reason=text)
        progress = CommandProgress(command.id, state, text, self._true_ms())
        for _ in range(REPORTS_MAX):
            if self._report is not None and self._report(progress):
                return
            await asyncio.sleep(REPORT_EVERY_S)

    async def _deliver(self, command: Command) -> tuple[CommandState, str]:
        if len(self._under_way) > COMMANDS_MAX:
            return CommandState.FAILED, f"the gateway has {COMMANDS_MAX} commands under way"
        left_s = (command.deadline - self._true_ms()) / 1000
        if left_s <= 0:
            return CommandState.EXPIRED, "its deadline had passed when it came"
        reasons = []
        for listener, alias_key, alias in self._ways(command.device_id):
            way = listener.way(alias_key, alias)
            if way is None:
                reasons.append(f"{alias_key}:{alias} is not connected to {listener.name}")
                continue
            try:
                async with asyncio.timeout(left_s):
                    await way.send(command)
            except TimeoutError:
                return CommandState.EXPIRED, "the device did not acknowledge it in time"
            except CommandRefusedError as error:
                return CommandState.FAILED, str(error)
            except (DeviceAbsentError, DeviceGoneError) as error:
                reasons.append(str(error))
            else:
                return CommandState.DELIVERED if way.confirms else CommandState.SENT, ""
        return CommandState.FAILED, "; ".join(reasons) or "the device is of no network of this gateway"

    def _ways(self, device_id: int) -> Iterator[tuple[Listener, str, str]]:
        device = self._replica.registry.devices.get(device_id)
        for alias in device.aliases if device is not None else ():
            for listener in self._listeners:
                if listener.network_id == alias.network_id:
                    yield listener, alias.alias_key, alias.alias
