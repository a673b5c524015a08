"""Clients that nobody here wrote, each as a device: it says one message, gets one command, and answers it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import aiocoap
import gmqtt
import msgspec
from paho.mqtt.enums import MQTTProtocolVersion

from tests.contract import mqtt_js
from tests.contract.mosquitto import program
from tests.end_to_end.commander import Commander
from tests.end_to_end.protocols.site import ProtocolsSite

DEADLINE_S: Final = 30.0
MESSAGE: Final = '{"n":1}'
YES: Final = '{"ok":true}'


class Pump(msgspec.Struct, frozen=True):
    """The device that a client speaks for."""

    site: ProtocolsSite
    name: str
    password: str
    send_command: Callable[[], Awaitable[str]]
    """From the cloud, to it; the command's id."""

    @property
    def mqtt_port(self) -> int:
        return self.site.mqtt_ports["plain"]


# ---- MQTT


async def mosquitto(pump: Pump, version: str, *, port: int = 0, user: str = "", base: str = "") -> None:
    """mosquitto_pub and mosquitto_sub, for MQTT 5 or 311; at another broker than the gateway, where those are said. By
    311 the id of a command is the last level of its topic, else it is the correlation data."""
    place = ("-h", "127.0.0.1", "-p", str(port or pump.mqtt_port), "-u", user or pump.name, "-P", pump.password,
             "-V", version, "-q", "1")  # fmt: skip
    filters = f"{base}down/#" if version == "5" else f"{base}down/+/+"
    listening = await asyncio.create_subprocess_exec(
        program("stdbuf"), "-oL", program("mosquitto_sub"), *place, "-d", "-t", filters, "-C", "1",
        "-F", "got %t %D", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with _ended(listening):
        await _line_with(listening, b"Subscribed")
        await _run("mosquitto_pub", *place, "-t", f"{base}up", "-m", MESSAGE)
        command = await pump.send_command()
        _, topic, *correlation = (await _line_with(listening, b"got ")).decode().split()
        assert (correlation or topic.split("/")[-1:]) == [command]
        answers = f"{base}response" if base else "up/response"
        await _run("mosquitto_pub", *place, "-t", f"{answers}/{command}", "-m", YES)


async def existing_broker(pump: Pump) -> None:
    """Devices at a mosquitto that the gateway is a client of."""
    await pump.site.start_broker()
    at_broker = msgspec.structs.replace(pump, password="secret")
    await mosquitto(at_broker, "5", port=pump.site.broker.port, user="device", base=f"sensors/{pump.name}/")


async def paho(pump: Pump, version: MQTTProtocolVersion) -> None:
    device = Commander({"name": pump.name, "password": pump.password, "port": pump.mqtt_port}, version)
    await device.connect()
    try:
        await device.say(MESSAGE)
        command = await pump.send_command()
        await device.has_run(command)
    finally:
        await device.leave()


async def gmqtt_client(pump: Pump, version: int) -> None:
    got: asyncio.Future[tuple[str, dict[str, Any]]] = asyncio.get_running_loop().create_future()
    subscribed = asyncio.Event()

    async def on_message(client: gmqtt.Client, topic: str, payload: bytes, qos: int, properties: dict[str, Any]) -> int:
        got.set_result((topic, properties))
        return 0

    device = gmqtt.Client(pump.name)
    device.set_auth_credentials(pump.name, pump.password)
    device.on_message = on_message
    device.on_subscribe = lambda *_: subscribed.set()
    await device.connect("127.0.0.1", pump.mqtt_port, version=version)
    device.subscribe("down/#" if version == 5 else "down/+/+", qos=1)
    await subscribed.wait()
    device.publish("up", MESSAGE, qos=1)
    command = await pump.send_command()
    topic, properties = await got
    assert command in (topic if version == 4 else str(properties["correlation_data"]))
    device.publish(f"up/response/{command}", YES, qos=1)
    await device.disconnect()


async def mqtt_js_device(pump: Pump, version: str) -> None:
    url = f"mqtt://127.0.0.1:{pump.mqtt_port}"
    process = await mqtt_js.start(url, version, pump.name, pump.password, MESSAGE)
    command = await pump.send_command()
    output, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
    assert command in output.decode()


# ---- CoAP


async def aiocoap_client(pump: Pump) -> None:
    base = f"coap://127.0.0.1:{pump.site.coap}/sensors/{pump.name}"
    context = await aiocoap.Context.create_client_context(transports=["simple6"])

    async def posts(path: str, payload: str) -> None:
        uri = f"{base}/{path}?key={pump.password}"
        message = aiocoap.Message(code=aiocoap.POST, uri=uri, payload=payload.encode(), content_format=50)
        assert (await context.request(message).response).code == aiocoap.CHANGED

    try:
        await posts("up", MESSAGE)
        uri = f"{base}/down?key={pump.password}"
        request = context.request(aiocoap.Message(code=aiocoap.GET, uri=uri, observe=0))
        await request.response
        command = await pump.send_command()
        told = await anext(aiter(request.observation))
        assert json.loads(told.payload)["id"] == command
        await posts(f"response/{command}", YES)
        request.observation.cancel()
    finally:
        await context.shutdown()


# ---- lines


async def lines(pump: Pump, *words: str, login: str = "", ready: Callable[[], Awaitable[None]] | None = None) -> None:
    """A program whose input and output are a device's: `nc` and `socat`, over TCP, UDP or a pseudo-terminal. `ready`:
    returns once somebody is there to hear it."""
    process = await asyncio.create_subprocess_exec(
        *words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    async with _ended(process):
        assert process.stdin is not None
        assert process.stdout is not None
        if ready is not None:
            await ready()
        process.stdin.write(f"{login}{MESSAGE}\n".encode())
        await _line_with(process, b"OK")
        command = await pump.send_command()
        told = json.loads(await process.stdout.readuntil(b"}}"))
        assert told == {"command": "reboot", "id": command, "payload": {"in_s": 3}}
        process.stdin.write(json.dumps({"response": command, "ok": True}).encode() + b"\n")
        await _line_with(process, b"OK")


# ---- inside


async def _run(name: str, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(program(name), *arguments)
    assert await process.wait() == 0


async def _line_with(process: asyncio.subprocess.Process, word: bytes) -> bytes:
    assert process.stdout is not None
    while word not in (line := await process.stdout.readline()):
        assert line, "it ended"
    return line


@contextlib.asynccontextmanager
async def _ended(process: asyncio.subprocess.Process) -> AsyncIterator[None]:
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()
