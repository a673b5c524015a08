"""Which messages are events and alarms: by topic, as the configuration says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from protocols.messages import Priority
from protocols.mqtt.topics import matches


class Priorities:
    """`rules`: valid topic filters, each with the priority of what is published to them."""

    def __init__(self, rules: Sequence[tuple[str, Priority]]) -> None:
        self._rules = tuple(rules)

    def of(self, topic: str) -> Priority:
        """The highest of those that fit; telemetry where none does."""
        fitting = (priority for topic_filter, priority in self._rules if matches(topic_filter, topic))
        return max(fitting, default=Priority.TELEMETRY)


NO_PRIORITIES: Final = Priorities(())
