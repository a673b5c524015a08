"""What a client can do against the standard. Each closes its connection [MQTT-4.8.0-1] and no other's."""

from __future__ import annotations

from protocols.errors import WireError


class MqttError(WireError):
    """Close the connection. `clause` names the rule: a numbered statement of the standard, or its section."""

    def __init__(self, detail: str, clause: str) -> None:
        super().__init__(f"{detail} [{clause}]")
        self.clause = clause


class MalformedPacketError(MqttError):
    """The bytes are no packet of the standard."""


class ViolationError(MqttError):
    """A packet that is well formed, but not allowed here or now."""

    code = "protocol"


class PacketLimitError(MqttError):
    """Larger than a named limit (protocols/limits.py), before the standard's own."""

    code = "limit"


class UnsupportedError(MqttError):
    """Allowed by the standard, not offered by this server."""

    code = "unsupported"


class LevelError(UnsupportedError):
    """Another version of the protocol: answer with return code 0x01, then close [MQTT-3.1.2-2]."""

    code = "protocol_level"


class IdentifierError(ViolationError):
    """A client identifier that cannot be taken: answer with return code 0x02, then close [MQTT-3.1.3-8]."""

    code = "client_id"


class NotSubscribedError(Exception):
    """Keep the message for later: no subscription of the session matches its topic."""


class WindowFullError(Exception):
    """Retry after the next PUBACK: as many messages as allowed wait for theirs."""
