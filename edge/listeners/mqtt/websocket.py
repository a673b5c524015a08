"""MQTT over WebSocket (section 6): a transport for MqttConnection, by the library's sans-IO protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from protocols.limits import MQTT_PACKET_BYTES_MAX

SUBPROTOCOL: Final = Subprotocol("mqtt")
"""[MQTT-6.0.0-3]"""

MESSAGE_BYTES_MAX: Final = 2 * MQTT_PACKET_BYTES_MAX
"""One WebSocket message: packets may be cut and joined in any way, and most clients send one at a time."""

HANDSHAKE_S: Final = 10.0

_DATA: Final = (Opcode.BINARY, Opcode.CONT)


class WebSocketDoor(asyncio.Protocol):
    """Between a socket and an MqttConnection, which comes to be once the handshake is done and sees a transport."""

    def __init__(self, make_inner: Callable[[], asyncio.Protocol], loop: asyncio.AbstractEventLoop) -> None:
        self._make_inner = make_inner
        self._loop = loop
        self._inner: asyncio.Protocol | None = None
        self._websocket = ServerProtocol(subprotocols=[SUBPROTOCOL], max_size=MESSAGE_BYTES_MAX)
        self._transport: asyncio.Transport
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._deadline = self._loop.call_later(HANDSHAKE_S, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        while data and self._websocket.state is State.CONNECTING and not self._transport.is_closing():
            # Line by line: the library would read what stands behind the request as frames before it is answered.
            line, feed, data = data.partition(b"\n")
            self._websocket.receive_data(line + feed)
            self._take()
        if data and not self._transport.is_closing():
            self._websocket.receive_data(data)
            self._take()
        self.flush()

    def eof_received(self) -> bool:
        self._websocket.receive_eof()
        self._take()
        self.flush()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def send(self, data: bytes) -> None:
        if self._websocket.state is State.OPEN:
            self._websocket.send_binary(data)
            self.flush()

    def say_goodbye(self) -> None:
        if self._websocket.state is State.OPEN:
            self._websocket.send_close(CloseCode.NORMAL_CLOSURE)
        self.flush()
        self._transport.close()

    def flush(self) -> None:
        for data in self._websocket.data_to_send():
            if data:
                self._transport.write(data)
            else:  # the library's sign for the end
                self._transport.close()

    def _take(self) -> None:
        for event in self._websocket.events_received():
            if isinstance(event, Request):
                self._answer(event)
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                self._websocket.fail(CloseCode.UNSUPPORTED_DATA, "MQTT takes binary frames [MQTT-6.0.0-1]")
            elif isinstance(event, Frame) and event.opcode in _DATA and self._inner is not None:
                self._inner.data_received(bytes(event.data))

    def _answer(self, request: Request) -> None:
        response = self._websocket.accept(request)
        self._websocket.send_response(response)
        self.flush()
        if self._websocket.state is State.OPEN:
            self._stop_waiting()
            self._inner = self._make_inner()
            self._inner.connection_made(_WebSocketTransport(self, self._transport))

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _WebSocketTransport(asyncio.Transport):
    """What MqttConnection uses of a transport."""

    def __init__(self, door: WebSocketDoor, below: asyncio.Transport) -> None:
        super().__init__()
        self._door = door
        self._below = below

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._below.get_extra_info(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._below.set_write_buffer_limits(high, low)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._door.send(bytes(data))

    def close(self) -> None:
        self._door.say_goodbye()

    def abort(self) -> None:
        self._below.abort()

    def pause_reading(self) -> None:
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._below.resume_reading()
