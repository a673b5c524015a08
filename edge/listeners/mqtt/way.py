"""A command's way to an MQTT device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from edge.listeners.mqtt.connection import MqttConnection
from edge.listeners.way import CommandRefusedError, DeviceAbsentError
from protocols.limits import TOPIC_BYTES_MAX
from protocols.messages import Command
from protocols.mqtt.errors import NotSubscribedError, TooLargeError, WindowFullError
from protocols.mqtt.topics import DEVICE_SPACE

COMMAND_QOS: Final = 1
"""A command names itself by its id, so that a second copy does no harm."""


class MqttWay:
    """To the topic `down/<name>` of a device, on its newest connection that subscribes to it. The device has it at its
    PUBACK. With MQTT 5, the correlation data are the command's id, and the response topic is where to answer."""

    confirms = True

    def __init__(self, device: str, connections: Sequence[MqttConnection]) -> None:
        """`connections`: the newest last; at least one."""
        self._device = device
        self._connections = connections

    async def send(self, command: Command) -> None:
        topic = f"{DEVICE_SPACE}/{command.name}"
        if len(topic.encode()) > TOPIC_BYTES_MAX or any(char in topic for char in "+#\0"):
            raise CommandRefusedError(f"no topic can be {topic[:64]!r}")
        for connection in reversed(self._connections):
            outgoing = connection.outgoing
            if outgoing is None:
                continue
            try:
                future = outgoing.command(command, COMMAND_QOS, command.deadline)
            except NotSubscribedError:
                continue
            except WindowFullError as error:
                raise DeviceAbsentError(str(error)) from None
            except TooLargeError as error:
                raise CommandRefusedError(str(error)) from None
            await future
            return
        raise DeviceAbsentError(f"{self._device} does not subscribe to {topic}")
