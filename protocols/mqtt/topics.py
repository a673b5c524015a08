"""Topic names and topic filters (section 4.7)."""

from __future__ import annotations

from typing import Final

from protocols.limits import TOPIC_BYTES_MAX
from protocols.mqtt.errors import MalformedPacketError, PacketLimitError, ViolationError
from protocols.mqtt.reasons import Reason

SHARED: Final = "$share"
"""First level of a shared subscription: `$share/group/filter` (MQTT 5, section 4.8.2)."""

DEVICE_SPACE = "down"
"""What a device may subscribe to: the topics below this first level. Each device has a topic space of its own, so that
`down/reboot` of one is no other's."""


def decode_text(data: bytes, name: str) -> str:
    """A UTF-8 string (section 1.5.3), its two length bytes taken off; a byte order mark stays [MQTT-1.5.3-3]."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise MalformedPacketError(f"{name} is not UTF-8", "MQTT-1.5.3-1") from None
    if "\0" in text:
        raise MalformedPacketError(f"{name} holds the character U+0000", "MQTT-1.5.3-2")
    return text


def decode_topic(data: bytes, name: str = "topic name", clause: str = "MQTT-3.3.2-2") -> str:
    """The topic name of a PUBLISH or a will."""
    text = _decode(data, name)
    if "#" in text or "+" in text:
        raise MalformedPacketError(f"{name} holds a wildcard, + or #", clause, Reason.TOPIC_NAME_INVALID)
    return text


def decode_filter(data: bytes) -> str:
    """A topic filter of SUBSCRIBE or UNSUBSCRIBE."""
    text = _decode(data, "topic filter")
    levels = text.split("/")
    if any("#" in level and level != "#" for level in levels) or "#" in levels[:-1]:
        raise MalformedPacketError("# in a topic filter must be its whole last level", "MQTT-4.7.1-2")
    if any("+" in level and level != "+" for level in levels):
        raise MalformedPacketError("+ in a topic filter must be a whole level", "MQTT-4.7.1-3")
    return text


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a message of `topic` goes to a subscription (sections 4.7.1 and 4.7.2); both must be valid."""
    wanted, given = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("#", "+"):
        return False
    for place, level in enumerate(wanted):
        if level == "#":
            return True
        if place == len(given) or level not in ("+", given[place]):
            return False
    return len(wanted) == len(given)


def split_shared(topic_filter: str) -> tuple[str, str]:
    """The group of a shared subscription and the filter that it shares; no group: an ordinary one."""
    first, _, rest = topic_filter.partition("/")
    if first != SHARED:
        return "", topic_filter
    group, slash, shared = rest.partition("/")
    if not group or not slash or not shared or "+" in group or "#" in group:
        detail = f"{topic_filter!r} is no $share/group/filter"
        raise ViolationError(detail, "MQTT-4.8.2-1", Reason.TOPIC_FILTER_INVALID)
    return group, shared


def is_own(topic_filter: str) -> bool:
    """Whether the filter stays within the device's own space: `down`, `down/#`, `down/reboot`, …"""
    return topic_filter.split("/", 1)[0] == DEVICE_SPACE


def _decode(data: bytes, name: str) -> str:
    if not data:
        raise MalformedPacketError(f"{name} is empty", "MQTT-4.7.3-1")
    if len(data) > TOPIC_BYTES_MAX:
        raise PacketLimitError(f"{name} of {len(data):,} bytes; the limit is {TOPIC_BYTES_MAX}", "section 4.7.3")
    return decode_text(data, name)
