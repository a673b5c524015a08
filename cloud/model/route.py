"""Message routes: which topics a message visits, in order."""

from __future__ import annotations

from collections.abc import Collection

from protocols.messages import Route

EVENT = "device_data_event"


def next_topic(route: Route, routable: Collection[str], after: str | None = None) -> str | None:
    """The topic that a data message goes to, coming from `after` (None: from the processor). None: it stops there."""
    topics = [topic for topic in route.get(EVENT, ()) if topic in routable]
    if after is None:
        return topics[0] if topics else None
    behind = topics[topics.index(after) + 1 :] if after in topics else []
    return behind[0] if behind else None
