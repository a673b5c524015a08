"""The topics of the pipeline and who reads them: all durable consumers exist before anything is accepted."""

from __future__ import annotations

from typing import Final

from sync.bus.contract import TopicSpec

TOPIC_BYTES_MAX: Final = 8 * 1024**3
"""What JetStream keeps of a topic whose readers are away; beyond it gateways keep their data and try again."""

DEFAULT_PROCESSOR: Final = "default-processor"
"""Shipments: blocks as they came."""
WRITER: Final = "writer"
"""Message batches on their way into the databases."""

PROCESSOR: Final = "processor"
TRANSPONDER: Final = "transponder"
"""Services are called as their channels and as the hops that their progress is kept under."""

TOPICS: Final = (
    TopicSpec(DEFAULT_PROCESSOR, (PROCESSOR,), TOPIC_BYTES_MAX),
    TopicSpec(WRITER, (TRANSPONDER,), TOPIC_BYTES_MAX),
)

ROUTABLE: Final = frozenset({WRITER})
"""Topics that a message route may name."""
