"""What a client can do against the standard. Each closes its connection [MQTT-4.8.0-1] and no other's."""

from __future__ import annotations

from protocols.errors import WireError
from protocols.mqtt.reasons import Reason


class MqttError(WireError):
    """Close the connection. `clause` names the rule: a numbered statement of a standard, or its section; `reason` is
    what a client of MQTT 5 is told."""

    reason = Reason.UNSPECIFIED

    def __init__(self, detail: str, clause: str, reason: Reason | None = None) -> None:
        super().__init__(f"{detail} [{clause}]")
        self.clause = clause
        if reason is not None:
            self.reason = reason


class MalformedPacketError(MqttError):
    """The bytes are no packet of the standard."""

    reason = Reason.MALFORMED_PACKET


class ViolationError(MqttError):
    """A packet that is well formed, but not allowed here or now."""

    code = "protocol"
    reason = Reason.PROTOCOL_ERROR


class PacketLimitError(MqttError):
    """Larger than a named limit (protocols/limits.py), before the standard's own."""

    code = "limit"
    reason = Reason.PACKET_TOO_LARGE


class UnsupportedError(MqttError):
    """Allowed by the standard, not offered by this server."""

    code = "unsupported"
    reason = Reason.IMPLEMENTATION_SPECIFIC


class LevelError(UnsupportedError):
    """Another version of the protocol: answer with return code 0x01, then close [MQTT-3.1.2-2]."""

    code = "protocol_level"
    reason = Reason.UNSUPPORTED_VERSION


class IdentifierError(ViolationError):
    """A client identifier that cannot be taken: answer with return code 0x02, then close [MQTT-3.1.3-8]."""

    code = "client_id"
    reason = Reason.CLIENT_ID_NOT_VALID


class NotSubscribedError(Exception):
    """Keep the message for later: no subscription of the session matches its topic."""


class WindowFullError(Exception):
    """Retry after the next acknowledgement: as many messages as allowed wait for theirs."""


class TooLargeError(Exception):
    """Give it up: the client takes no packet of this size (its Maximum Packet Size)."""
