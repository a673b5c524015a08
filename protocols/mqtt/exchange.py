"""Who gets what: subscriptions by topic, and retained messages, of one network whose devices talk to each other. Pure.

A message of one device goes to each session whose filters match (section 4.7), and to one session of each group that
shares a subscription (MQTT 5, section 4.8.2): to each in turn, those that are connected first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from protocols.mqtt.outbox import Message, is_over
from protocols.mqtt.packets import Subscription
from protocols.mqtt.session import Match, Session, merged
from protocols.mqtt.topics import matches, split_shared

RETAINED_MAX: Final = 10_000
"""Retained messages of a network: one or two of each device."""

RETAINED_BYTES_MAX: Final = 16 * 1024 * 1024
"""The same by their payloads."""


class _Node(msgspec.Struct, eq=False):
    below: dict[str, _Node] = {}
    members: dict[Session, Subscription] = {}
    groups: dict[str, dict[Session, Subscription]] = {}

    def is_empty(self) -> bool:
        return not (self.below or self.members or self.groups)


class Exchange:
    def __init__(self) -> None:
        self.retained: dict[str, Message] = {}
        self._retained_bytes = 0
        self._root = _Node()

    def subscribe(self, session: Session, subscription: Subscription) -> None:
        group, topic_filter = split_shared(subscription.topic_filter)
        node = self._root
        for level in topic_filter.split("/"):
            node = node.below.setdefault(level, _Node())
        (node.groups.setdefault(group, {}) if group else node.members)[session] = subscription

    def unsubscribe(self, session: Session, name: str) -> None:
        group, topic_filter = split_shared(name)
        path = [(self._root, "")]
        node = self._root
        for level in topic_filter.split("/"):
            below = node.below.get(level)
            if below is None:
                return
            path.append((below, level))
            node = below
        if group:
            members = node.groups.get(group, {})
            members.pop(session, None)
            if not members:
                node.groups.pop(group, None)
        else:
            node.members.pop(session, None)
        for (above, _), (below, level) in zip(reversed(path[:-1]), reversed(path[1:]), strict=True):
            if below.is_empty():
                del above.below[level]

    def receivers(
        self, topic: str, sender: Session | None, is_here: Callable[[Session], bool]
    ) -> list[tuple[Session, Match]]:
        """Each session once, with all of its subscriptions that match; `sender`: not to it where it asked for No Local
        [MQTT-3.8.3-3]."""
        found: dict[Session, list[Subscription]] = {}
        for node in _matching(self._root, topic.split("/"), 0, topic.startswith("$")):
            for session, subscription in node.members.items():
                if session is not sender or not subscription.no_local:
                    found.setdefault(session, []).append(subscription)
            for group in node.groups.values():
                session = next((member for member in group if is_here(member)), next(iter(group)))
                subscription = group.pop(session)
                group[session] = subscription  # the next message is another's
                found.setdefault(session, []).append(subscription)
        receivers = ((session, merged(subscriptions)) for session, subscriptions in found.items())
        return [(session, match) for session, match in receivers if match is not None]

    def retain(self, message: Message) -> bool:
        """Keeps it in the place of the one before; an empty payload only removes that [MQTT-3.3.1-6]. False: there is
        no room, and none is kept."""
        old = self.retained.pop(message.topic, None)
        if old is not None:
            self._retained_bytes -= len(old.payload)
        if not message.payload:
            return True
        if len(self.retained) >= RETAINED_MAX or self._retained_bytes + len(message.payload) > RETAINED_BYTES_MAX:
            return False
        self.retained[message.topic] = message
        self._retained_bytes += len(message.payload)
        return True

    def retained_for(self, topic_filter: str, now_ms: int) -> list[Message]:
        """Those of a new subscription; none for a shared one [MQTT-4.8.2]."""
        if split_shared(topic_filter)[0]:
            return []
        return [
            message
            for topic, message in self.retained.items()
            if not is_over(message, now_ms) and matches(topic_filter, topic)
        ]


def _matching(node: _Node, levels: list[str], at: int, is_hidden: bool) -> Iterator[_Node]:
    """`is_hidden`: wildcards do not match the first level [MQTT-4.7.2-1]."""
    wild = not (is_hidden and at == 0)
    if wild and "#" in node.below:
        yield node.below["#"]
    if at == len(levels):
        yield node
        return
    if levels[at] in node.below:
        yield from _matching(node.below[levels[at]], levels, at + 1, is_hidden)
    if wild and "+" in node.below:
        yield from _matching(node.below["+"], levels, at + 1, is_hidden)
