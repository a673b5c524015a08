"""A device that does what it is told, by paho: each command once, by its id; and answers it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

DEADLINE_S = 30.0


class Commander:
    """By MQTT 3.1.1 it subscribes to `down/+/+`, so that the topic says the command's name and id; by 5 to `down/#`,
    and the correlation data are the id. What it remembers outlives its connections, as in flash."""

    def __init__(self, roster: dict[str, Any], version: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv311) -> None:
        self.came: Counter[str] = Counter()
        """How often each command came, by id."""
        self.ran: dict[str, tuple[str, bytes]] = {}
        self.answers: dict[str, bytes] = {}
        self.name: str = roster["name"]
        self._roster = roster
        self._version = version
        self._client: paho.Client | None = None

    async def connect(self) -> None:
        """Returns once it has subscribed; it comes back by itself."""
        loop, subscribed = asyncio.get_running_loop(), asyncio.Event()
        name = self._roster["name"]
        client = self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=self._version)
        client.username_pw_set(name, self._roster["password"])
        client.reconnect_delay_set(1, 1)
        client.on_connect = lambda *_: client.subscribe("down/#" if self._is_v5 else "down/+/+", 1)
        client.on_subscribe = lambda *_: loop.call_soon_threadsafe(subscribed.set)
        client.on_message = self._told
        client.connect("127.0.0.1", self._roster["port"])
        client.loop_start()
        async with asyncio.timeout(DEADLINE_S):
            await subscribed.wait()

    async def say(self, payload: str) -> None:
        """Returns once the gateway has it."""
        assert self._client is not None
        said = self._client.publish("up", payload, 1)
        await asyncio.to_thread(said.wait_for_publish, DEADLINE_S)
        assert said.is_published()

    async def has_run(self, command_id: str) -> None:
        """Returns once it has answered that command."""
        async with asyncio.timeout(DEADLINE_S):
            while command_id not in self.answers:
                await asyncio.sleep(0.01)

    async def leave(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            client.disconnect()
            await asyncio.to_thread(client.loop_stop)

    @property
    def _is_v5(self) -> bool:
        return self._version is MQTTProtocolVersion.MQTTv5

    def _told(self, client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        name, _, command_id = message.topic.removeprefix("down/").partition("/")
        if self._is_v5:
            command_id = message.properties.CorrelationData.decode()
        self.came[command_id] += 1
        if command_id not in self.ran:
            self.ran[command_id] = name, message.payload
            said: dict[str, Any] = {"error": "the valve is stuck"} if name == "jam" else {"ok": True, "did": name}
            self.answers[command_id] = json.dumps(said).encode()
        client.publish(f"up/response/{command_id}", self.answers[command_id], 1)
