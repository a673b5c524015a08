"""The services that work on the pipeline's topics, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cloud.registry_feed import RegistryFeed
from cloud.services.processor import Processor
from cloud.services.service import Service
from cloud.services.transponder import Transponder
from cloud.topics import PROCESSOR, TRANSPONDER
from sync.link.server import unix_ms

PIPELINE: Final[dict[str, Callable[[RegistryFeed], Service]]] = {
    PROCESSOR: Processor,
    TRANSPONDER: lambda feed: Transponder(unix_ms),
}
"""In the order in which messages visit them."""


def pipeline_service(name: str, feed: RegistryFeed) -> Service:
    return PIPELINE[name](feed)
