"""/healthz, /readyz and /metrics of a cloud process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Final

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from cloud.db.database import DatabaseError
from tidegate.logs import get_logger

_log = get_logger("monitoring")

Check = Callable[[], Awaitable[str | None]]
"""None: well; else what is wrong."""
Read = Callable[[], Awaitable[None]]
Collect = Callable[[], Iterable[Metric]]
Figures = Callable[[], dict[tuple[str, str], float]]
"""(metric, service) to value, all counters since the start of the process."""


class Monitoring:
    """Figures are read when they are asked for: nothing is counted twice for metrics' sake."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self._figures: list[Figures] = []
        self._tables: list[tuple[Read, Collect]] = []
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self._registry: Final = CollectorRegistry()
        self._registry.register(self)
        self._readable: list[Collect] = []
        self.ready = False

    def check(self, name: str, check: Check) -> None:
        self._checks[name] = check

    def count(self, figures: Figures) -> None:
        self._figures.append(figures)

    def table(self, read: Read, collect: Collect) -> None:
        """`read` is awaited before `collect` is asked; where it raises DatabaseError, these metrics are missing."""
        self._tables.append((read, collect))

    def gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        self._gauges[name] = (documentation, read)

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client."""
        families: dict[str, CounterMetricFamily] = {}
        for figures in self._figures:
            for (metric, service), value in figures().items():
                if metric not in families:
                    families[metric] = CounterMetricFamily(
                        f"tidegate_{metric}", f"{metric.replace('_', ' ')} since the start", labels=["service"]
                    )
                families[metric].add_metric([service], value)
        yield from families.values()
        for name, (documentation, read) in self._gauges.items():
            yield GaugeMetricFamily(f"tidegate_{name}", documentation, read())
        for collect in self._readable:
            yield from collect()

    def router(self) -> APIRouter:
        router = APIRouter(include_in_schema=False)

        @router.get("/healthz")
        async def healthz() -> Response:
            """The process answers."""
            return PlainTextResponse("ok\n")

        @router.get("/readyz")
        async def readyz() -> Response:
            """It can do its work: 503 with what is wrong until then."""
            found = {name: await check() for name, check in self._checks.items()}
            wrong = {name: detail for name, detail in found.items() if detail is not None}
            well = self.ready and not wrong
            body = {"ready": well, **{name: detail or "ok" for name, detail in found.items()}}
            return JSONResponse(body, status_code=200 if well else 503)

        @router.get("/metrics")
        async def metrics() -> Response:
            self._readable = [collect for read, collect in self._tables if await _was_read(read)]
            return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

        return router


async def _was_read(read: Read) -> bool:
    try:
        await read()
    except DatabaseError as error:
        _log.warning("metrics incomplete", reason=str(error))
        return False
    return True
