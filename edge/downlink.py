"""What the cloud sends: changes of the registry into the replica, commands to devices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from edge.listeners.mqtt import DeviceAbsentError, MqttListener
from edge.listeners.mqtt_connection import DeviceGoneError
from edge.replica import Replica
from protocols.messages import Command, CommandState
from protocols.mqtt.errors import NotSubscribedError, WindowFullError
from protocols.mqtt.topics import DEVICE_SPACE
from sync.link.frames import CommandProgress
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
    """The link's Downlink. A command goes to its device's newest connection on the topic `down/<name>`: *delivered* is
    said at the device's PUBACK, and not sooner."""

    def __init__(self, replica: Replica, listeners: Sequence[MqttListener], *, true_ms: Callable[[], int]) -> None:
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
        """Warns, once, of each listener whose network the registry does not have: nobody can log in there."""
        for listener in self._listeners:
            network = listener.network_id
            if self._replica.has_network(network):
                self._warned.discard(network)
            elif network not in self._warned:
                self._warned.add(network)
                project = self._replica.registry.project_id
                reason = f"network {network} is not in project {project}"
                _log.warning("nobody can log in", listener=listener.name, reason=reason)

    async def command_arrived(self, command: Command) -> None:
        task = asyncio.create_task(self._carry_out(command), name=f"command {command.id}")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

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
            try:
                async with asyncio.timeout(left_s):
                    await listener.send(alias_key, alias, f"{DEVICE_SPACE}/{command.name}", command.payload)
            except TimeoutError:
                return CommandState.EXPIRED, "the device did not acknowledge it in time"
            except DeviceAbsentError:
                reasons.append(f"{alias_key}:{alias} is not connected to {listener.name}")
            except NotSubscribedError:
                reasons.append(f"{alias_key}:{alias} does not subscribe to {DEVICE_SPACE}/{command.name}")
            except (WindowFullError, DeviceGoneError) as error:
                reasons.append(str(error))
            else:
                return CommandState.DELIVERED, ""
        return CommandState.FAILED, "; ".join(reasons) or "the device is of no network of this gateway"

    def _ways(self, device_id: int) -> Iterator[tuple[MqttListener, str, str]]:
        device = self._replica.registry.devices.get(device_id)
        for alias in device.aliases if device is not None else ():
            for listener in self._listeners:
                if listener.network_id == alias.network_id:
                    yield listener, alias.alias_key, alias.alias
