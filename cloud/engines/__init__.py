"""PostgreSQL and NATS, embedded where none are given."""

from cloud.engines.engines import Engines
from cloud.engines.settings import EngineSettings

__all__ = ["EngineSettings", "Engines"]
