"""HTTP/1.1: a POST for each message, pipelined on one connection, and answered in order."""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import quote

import msgspec

from firmware_sim.devices.carriers.carrier import Owner
from firmware_sim.devices.carriers.stream import StreamCarrier
from firmware_sim.devices.orders import Answer
from firmware_sim.devices.outbox import Outgoing
from firmware_sim.devices.packets import COMMAND_BYTES_MAX, ProtocolError
from firmware_sim.devices.roster import RosterDevice
from firmware_sim.devices.surroundings import DeviceSettings, Runtime

HEAD_BYTES_MAX: Final = 16_384
NO_CONTENT: Final = 204


class HttpCarrier(StreamCarrier):
    usual_port = 8082

    def __init__(self, owner: Owner, identity: RosterDevice, settings: DeviceSettings, runtime: Runtime) -> None:
        super().__init__(owner, identity, settings, runtime)
        self._reader = AnswerReader()
        self._sent: deque[int] = deque()
        """Packet ids of the requests without an answer, in order."""
        self._path = "/" + quote(resource(identity).lstrip("/"))
        secret = f"{identity.user or identity.name}:{identity.password}".encode()
        credentials = f"Authorization: Basic {base64.b64encode(secret).decode()}\r\n" if identity.password else ""
        host, port = self._place
        self._head = f" HTTP/1.1\r\nHost: {host}:{port}\r\n{credentials}Content-Type: application/json\r\n"

    def send(self, messages: Sequence[Outgoing]) -> None:
        self._sent += [one.packet_id for one in messages]
        self.write(b"".join([self._request(self._path, one.payload) for one in messages]))

    def answer(self, answer: Answer, *, again: bool = False) -> None:
        self._sent.append(answer.packet_id)
        base = self._path.removesuffix("/up")
        self.write(self._request(f"{base}/response/{answer.command_id}", msgspec.json.encode(answer.body)))

    def _request(self, path: str, body: bytes) -> bytes:
        return f"POST {path}{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def _greet(self) -> None:
        self._stands()

    def _received(self, data: bytes) -> None:
        acknowledged: list[int] = []
        try:
            for status, body in self._reader.feed(data):
                if not 200 <= status < 300:
                    raise ProtocolError(f"{status}{body.decode(errors='replace')[:200]}")
                if not self._sent:
                    raise ProtocolError("an answer to nothing")
                acknowledged.append(self._sent.popleft())
        finally:
            if acknowledged:
                self._owner.acknowledged(self, acknowledged)


class AnswerReader:
    """Takes bytes in any portions, gives status and body of whole answers. Pure."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Raises ProtocolError."""
        self._rest += data
        while True:
            head, end, rest = self._rest.partition(b"\r\n\r\n")
            if len(head) > HEAD_BYTES_MAX:
                raise ProtocolError(f"an answer's head of more than {HEAD_BYTES_MAX:,} bytes")
            if not end:
                return
            status, length = _head(head)
            if len(rest) < length:
                return
            self._rest = rest[length:]
            yield status, rest[:length]


def resource(identity: RosterDevice) -> str:
    """The path of its messages."""
    return (identity.path or "{name}").replace("{name}", identity.name)


def _head(head: bytes) -> tuple[int, int]:
    """Status and length of the body."""
    first, *fields = head.split(b"\r\n")
    parts = first.split(b" ", 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
        raise ProtocolError(f"no answer of HTTP/1: {first[:40]!r}")
    status, length = int(parts[1]), 0
    for field in fields:
        name, _, value = field.partition(b":")
        if name.lower() == b"content-length" and value.strip().isdigit():
            length = int(value)
        elif name.lower() == b"transfer-encoding":
            raise ProtocolError("an answer in chunks")
    if length > COMMAND_BYTES_MAX:
        raise ProtocolError(f"an answer of {length:,} bytes")
    return status, 0 if status == NO_CONTENT else length
