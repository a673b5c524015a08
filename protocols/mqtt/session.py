"""What the server keeps of a client, beyond its connection (section 4.1 of MQTT 5, 3.1.2.4 of MQTT 3.1.1). Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from protocols.batch import BatchKey
from protocols.limits import MQTT_SUBSCRIPTIONS_MAX
from protocols.mqtt.connect import Connect
from protocols.mqtt.outbox import Outbox
from protocols.mqtt.packets import Subscription
from protocols.mqtt.reasons import Reason
from protocols.mqtt.topics import DEVICE_SPACE, is_own, matches, split_shared
from protocols.mqtt.wire import V5, V311

EXPIRY_NEVER_S: Final = 0xFFFFFFFF
EXPIRY_MAX_S: Final = 30 * 86_400
"""A session of a client that is away: a month, as long as a long outage of a site; then its place is wanted."""

COMMANDS_REMEMBERED: Final = 32
"""Commands that the client has acknowledged: one that is sent again is not run again."""


class SessionKey(msgspec.Struct, frozen=True, array_like=True):
    """Client identifiers of different devices cannot meet, so no device can push out another."""

    alias_key: str
    alias: str
    client_id: str


class Match(msgspec.Struct, frozen=True):
    """How a message goes to a session: by all of its subscriptions that match, once [MQTT-3.3.5-1]."""

    qos: int
    retain_as_published: bool
    identifiers: tuple[int, ...]


class Session:
    __slots__ = (
        "done",
        "expiry_s",
        "held",
        "key",
        "left_ms",
        "number",
        "outbox",
        "recording",
        "subscriptions",
        "version",
    )

    def __init__(self, key: SessionKey, *, number: int = 0) -> None:
        self.key = key
        self.number = number
        """In the store."""
        self.version = V311
        self.expiry_s = 0
        """How long it is kept once its client is gone; 0: not at all."""
        self.left_ms = 0
        """When its client went; 0: it is there."""
        self.subscriptions: dict[str, Subscription] = {}
        self.held: dict[int, BatchKey | None] = {}
        """Packet identifiers of QoS 2 that the client has not released yet; with a key: recorded if the log has that
        batch."""
        self.recording: set[int] = set()
        """Those that are on their way to the log."""
        self.outbox = Outbox()
        self.done: tuple[str, ...] = ()
        """Commands that the client has."""

    def begin(self, connect: Connect) -> None:
        """Takes over what a new connection says of the session."""
        self.version = connect.version
        self.expiry_s = expiry_of(connect)
        self.left_ms = 0

    def has_command(self, command_id: str) -> None:
        self.done = (*self.done, command_id)[-COMMANDS_REMEMBERED:]

    def is_over(self, now_ms: int) -> bool:
        """Whether the session of a client that went is to be forgotten. A clock that went back does not end it."""
        return bool(self.left_ms) and now_ms - self.left_ms >= self.expiry_s * 1000

    def subscribe(self, subscription: Subscription, *, talks: bool) -> tuple[Reason, bool]:
        """What to answer, and whether the filter is new. One that is subscribed already is replaced [MQTT-3.8.4-3].
        `talks`: devices of the network may talk to each other."""
        name = subscription.topic_filter
        known = name in self.subscriptions
        if not known and len(self.subscriptions) >= MQTT_SUBSCRIPTIONS_MAX:
            return Reason.QUOTA_EXCEEDED, False
        _, shared = split_shared(name)
        if not is_own(shared) and not talks:
            return Reason.NOT_AUTHORIZED, False
        self.subscriptions[name] = subscription
        return Reason(subscription.qos), not known

    def match(self, topic: str) -> Match | None:
        """For what the gateway itself sends to the device."""
        return merged([each for name, each in self.subscriptions.items() if matches(split_shared(name)[1], topic)])


def merged(subscriptions: list[Subscription]) -> Match | None:
    if not subscriptions:
        return None
    return Match(
        max(each.qos for each in subscriptions),
        any(each.retain_as_published for each in subscriptions),
        tuple(sorted({each.identifier for each in subscriptions if each.identifier})),
    )


def expiry_of(connect: Connect) -> int:
    """Seconds; MQTT 3.1.1 has sessions that end with their connection, and sessions that do not."""
    if connect.version == V5:
        return min(connect.properties.session_expiry_s or 0, EXPIRY_MAX_S)
    return 0 if connect.clean_start else EXPIRY_MAX_S


def is_between_devices(topic: str) -> bool:
    """Whether a device may reach others by it: what goes down to devices is the gateway's to say, and `$` is no
    client's [MQTT-4.7.2-1]."""
    return not topic.startswith("$") and topic.split("/", 1)[0] != DEVICE_SPACE
