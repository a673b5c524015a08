"""The proof: waits until the pipeline has come to rest, then compares the ledger with what the public API shows.

What is not in a device's history is looked for among the rejects, in the inbox, and in the gaps that gateways told of.
"""

from __future__ import annotations

import asyncio
import base64
import enum
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from firmware_sim.cloud_api import (
    CloudApi,
    GatewayAccounting,
    UnreachableError,
    gateway_accounting,
)
from firmware_sim.devices.garble import mark_in, name_in
from firmware_sim.gaps import GapItem, accounted_for
from firmware_sim.ledger import LedgerDevice, Mark, Tallies, acknowledged_ms, is_being_written, read_ledger
from firmware_sim.verdict import AnyMark, Evidence, Verdict, add_up

LOOK_S: Final = 0.5
"""How often the accounting is asked while something is on its way."""
FETCHES_MAX: Final = 4
"""Histories read at once: the cloud has other users."""
MARGIN_MS: Final = 3_600_000
"""Asked for before and after the run: clocks may differ, and messages from outside of it are told apart anyway."""
_SOURCE_RECORDS: Final = {
    "decoded_records": "decoded",
    "rejected_records": "rejected",
    "dead_records": "dead",
    "records_in_pipeline": "in pipeline",
}
"""The parts of `accepted`, and what they are called on the screen."""
_SOURCE_MESSAGES: Final = {
    "stored": "stored",
    "repeated": "repeated",
    "unresolved": "unresolved",
    "rejected": "rejected",
    "stopped": "stopped",
    "dead": "dead",
    "in_pipeline": "in pipeline",
}
"""The parts of `decoded`."""


class VerifyPlan(msgspec.Struct, frozen=True):
    ledger: Path
    gateways: tuple[str, ...]
    """Base addresses of the status APIs of the gateways that the devices were connected to."""
    project: str
    wait_s: float
    """How long to wait for what is still on its way."""
    beside: tuple[Path, ...] = ()
    """Ledgers of other fleets that may be sending through the same gateways."""
    margin_ms: int = MARGIN_MS
    """How far event times may lie from when devices sent."""


class Pipeline(msgspec.Struct, frozen=True):
    """What the accounting says at one moment."""

    gateways: tuple[GatewayAccounting, ...] = ()
    sources: tuple[dict[str, Any], ...] = ()
    """Of the cloud: one a gateway or REST server."""
    unreachable: str = ""
    """Who did not answer."""

    @property
    def pending(self) -> int:
        return sum(gateway.totals.pending for gateway in self.gateways)

    @property
    def in_pipeline(self) -> int:
        return sum(source["records_in_pipeline"] + source["in_pipeline"] for source in self.sources)

    @property
    def on_its_way(self) -> int:
        return self.pending + self.in_pipeline

    @property
    def is_empty(self) -> bool:
        return not self.unreachable and self.pending == 0 and self.in_pipeline == 0

    def open_equations(self) -> list[str]:
        """Each equation of the accounting that does not hold, in words."""
        found = [f"gateway: {gateway.line()}" for gateway in self.gateways if not gateway.is_closed]
        for source in self.sources:
            name = f"cloud, {source_name(source)}"
            for whole, parts in (("accepted", _SOURCE_RECORDS), ("decoded", _SOURCE_MESSAGES)):
                if source[whole] != sum(source[part] for part in parts):
                    sums = " + ".join(f"{part} {source[part]:,}" for part in parts)
                    found.append(f"{name}: {whole} {source[whole]:,} is not {sums}")
            if not source["closed"] and not found:
                found.append(f"{name}: it says itself that its accounting is open")
        return found


def source_name(source: dict[str, Any]) -> str:
    """A gateway by its id, the others by what they are."""
    kinds = {"rest": "HTTP ingest", "inbox": "inbox replays"}
    return str(source["gateway_id"] or kinds.get(source["kind"], source["kind"]))


def source_line(source: dict[str, Any]) -> str:
    """Both equations of a source, to be read and added up."""
    records = _sum(source, _SOURCE_RECORDS)
    # Services reject records and not messages, as a rule: that part is named where there is something in it.
    parts = {name: word for name, word in _SOURCE_MESSAGES.items() if name != "rejected" or source[name]}
    return (
        f"{source_name(source)}: records accepted {source['accepted']:,} = {records}; "
        f"messages decoded {source['decoded']:,} = {_sum(source, parts)}"
    )


def _sum(source: dict[str, Any], parts: dict[str, str]) -> str:
    return " + ".join(f"{word} {source[name]:,}" for name, word in parts.items())


class Progress(msgspec.Struct, frozen=True):
    """What is shown while it takes."""

    pending: int
    in_pipeline: int
    missing: int | None
    """So far; None before the first comparison."""
    unreachable: str
    remaining_s: float

    def line(self) -> str:
        if self.unreachable:
            return f"waiting for an answer · {self.unreachable} · {self.remaining_s:.0f} s left"
        missing = "" if self.missing is None else f" · {self.missing:,} not there yet"
        return f"pending {self.pending:,} · in pipeline {self.in_pipeline:,}{missing} · {self.remaining_s:.0f} s left"


class Outcome(enum.StrEnum):
    """What a proof comes to."""

    HOLDS = "holds"
    WAITING = "waiting"
    """Not proven yet: what is not stored can all be on its way."""
    LOST = "lost"
    """It can not: something is missing, doubled, or not accounted for."""


class Proof(msgspec.Struct, frozen=True):
    """What `verify` found."""

    total: Verdict
    devices: tuple[Verdict, ...]
    pipeline: Pipeline
    open_equations: tuple[str, ...]
    on_its_way: int
    """Pending at gateways and in the cloud's pipeline, before the last comparison or after it, whichever is more: a
    message that the comparison did not find was among them, if it is not lost."""
    at_rest: bool
    """Nothing was on its way at the end; while a fleet goes on sending there always is."""
    fleet_running: bool
    """One whose messages these are, or another on the same gateways."""
    gaps: tuple[GapItem, ...] = ()
    """What gateways told that they lost."""

    @property
    def holds(self) -> bool:
        """Nothing missing, nothing doubled, the accounting closed and, unless a fleet goes on sending, at rest."""
        return (
            self.total.is_right
            and not self.open_equations
            and not self.pipeline.unreachable
            and (self.at_rest or self.fleet_running)
        )

    @property
    def verdict(self) -> Outcome:
        if self.holds:
            return Outcome.HOLDS
        can_be_on_its_way = bool(self.pipeline.unreachable) or self.total.missing <= self.on_its_way
        if self.total.doubled or self.open_equations or not can_be_on_its_way:
            return Outcome.LOST
        return Outcome.WAITING


Identity = tuple[str, str, str]
"""Network, alias key, alias."""


def _identity(device: LedgerDevice) -> Identity:
    return device.network, device.alias_key, device.name


class Verification:
    """Runs a plan once. `clock`: seconds that never go back."""

    def __init__(
        self,
        plan: VerifyPlan,
        api: CloudApi,
        client: httpx.AsyncClient,
        *,
        clock: Callable[[], float],
        report: Callable[[Progress], None],
    ) -> None:
        self._plan = plan
        self._api = api
        self._client = client
        self._clock = clock
        self._report = report
        self._end_s = clock() + plan.wait_s
        self._tallies = Tallies([], {}, 0, 0)
        self._evidence: dict[int, Evidence] = {}
        """By the device's number in the ledger."""
        self._verdicts: dict[int, Verdict] = {}
        self._times_ms: dict[Mark, int] = {}
        self._rejected: dict[Identity, list[AnyMark]] = defaultdict(list)
        self._rejects_until = 0
        """Their newest number so far."""
        self._gaps: list[GapItem] = []
        self._in_gaps: dict[int, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
        """Seqs by device's number and boot."""

    async def run(self) -> Proof:
        """Raises UserError without a ledger, ApiError where the API says no, UnreachableError when the time is up and
        histories could not be read."""
        plan = self._plan
        running = any(is_being_written(ledger) for ledger in (plan.ledger, *plan.beside))
        self._tallies = tallies = read_ledger(plan.ledger)
        pipeline = await self._come_to_rest(running)
        before = await self._compare([at for at in range(len(tallies.devices)) if tallies.of_device(at)], pipeline)
        pipeline = await self._look()
        verdicts = tuple(self._verdicts[number] for number in sorted(self._verdicts))
        return Proof(
            add_up("all", "", verdicts),
            verdicts,
            pipeline,
            tuple(pipeline.open_equations()),
            max(before.on_its_way, pipeline.on_its_way),
            pipeline.is_empty,
            running,
            tuple(self._gaps),
        )

    async def _come_to_rest(self, running: bool) -> Pipeline:
        """While a fleet goes on sending, that is never: then what was acknowledged is looked for until it is there."""
        while True:
            pipeline = await self._look()
            if pipeline.is_empty or (running and not pipeline.unreachable) or not self._is_time_left():
                return pipeline
            self._tell(pipeline, None)
            await asyncio.sleep(LOOK_S)

    async def _compare(self, wanted: list[int], pipeline: Pipeline) -> Pipeline:
        """Each device; those of which something is not there yet again, as long as there is time. Returns the
        accounting before the last time."""
        in_gaps = 0
        while True:
            try:
                await self._gather(wanted)
                await self._account_for(self._missing(wanted))
            except UnreachableError:
                if not self._is_time_left():
                    raise
            else:
                for number in wanted:
                    self._verdicts[number] = self._evidence[number].verdict(self._in_gaps[number])
                wanted = [number for number, verdict in self._verdicts.items() if verdict.missing or verdict.in_gaps]
                missing = sum(verdict.missing for verdict in self._verdicts.values())
                before, in_gaps = in_gaps, sum(verdict.in_gaps for verdict in self._verdicts.values())
                # What a gap could account for may be on its way all the same.
                is_settled = pipeline.is_empty or in_gaps == 0 or (pipeline.on_its_way < in_gaps == before)
                if (not missing and is_settled) or not self._is_time_left():
                    return pipeline
                self._tell(pipeline, missing + in_gaps)
            await asyncio.sleep(LOOK_S)
            pipeline = await self._look()

    async def _gather(self, wanted: Iterable[int]) -> None:
        """Everything that the API has of these devices' messages."""
        places = asyncio.Semaphore(FETCHES_MAX)

        async def one(number: int) -> tuple[int, Evidence]:
            device = self._tallies.devices[number]
            evidence = Evidence(device, self._tallies.of_device(number))
            async with places:
                evidence.add_rows([(mark.boot, mark.seq) async for mark in self._marks(device)])
            return number, evidence

        # All to their end, then the first error: a caller's next try must not run beside what is left of this one.
        found = await asyncio.gather(*(one(number) for number in wanted), return_exceptions=True)
        for result in found:
            if isinstance(result, BaseException):
                raise result
        gathered = dict(result for result in found if not isinstance(result, BaseException))
        if any(evidence.is_to_be_rejected or any(evidence.missing()) for evidence in gathered.values()):
            rejects, unresolved = await self._rejects(), await self._inbox()
            for evidence in gathered.values():
                identity = _identity(evidence.device)
                evidence.add_rejects(rejects[identity])
                evidence.add_unresolved(unresolved[identity])
        self._evidence.update(gathered)

    def _missing(self, wanted: Iterable[int]) -> dict[Mark, int]:
        """What these devices were promised and was not found, and when they were, Unix ms. Others miss nothing."""
        marks = [(number, boot, seq) for number in wanted for boot, seq in self._evidence[number].missing()]
        if any(mark not in self._times_ms for mark in marks):
            seqs: dict[tuple[int, int], set[int]] = defaultdict(set)
            for number, boot, seq in marks:
                seqs[number, boot].add(seq)
            self._times_ms = acknowledged_ms(self._plan.ledger, seqs)
        return {mark: self._times_ms.get(mark, self._tallies.last_ms) for mark in marks}

    async def _account_for(self, missing: Mapping[Mark, int]) -> None:
        """By the gaps that are known now."""
        gaps = [gap async for gap in self._api.items("/gaps", {"project_id": self._plan.project})]
        self._gaps = msgspec.convert(gaps, list[GapItem])
        self._in_gaps = defaultdict(lambda: defaultdict(set))
        for number, boot, seq in accounted_for(missing, self._gaps):
            self._in_gaps[number][boot].add(seq)

    def _marks(self, device: LedgerDevice) -> Any:
        name, tallies, margin_ms = ":".join(_identity(device)), self._tallies, self._plan.margin_ms
        from_ms, to_ms = max(0, tallies.first_ms - margin_ms), tallies.last_ms + margin_ms
        return self._api.marks(self._plan.project, name, from_ms, to_ms)

    async def _rejects(self) -> dict[Identity, list[AnyMark]]:
        """By device, as far as the payloads still say which message they were. What is rejected stays so: the list is
        read on from where it was read to."""
        newest = self._rejects_until
        async for item in self._api.items("/rejects", {"project_id": self._plan.project}):
            if item["seq"] <= newest:
                break
            self._rejects_until = max(self._rejects_until, item["seq"])
            payload, alias_key = base64.b64decode(item["payload"]), item["alias_key"]
            mark = mark_in(payload)
            if mark is not None:
                alias = item["alias"] or name_in(payload, alias_key)
                self._rejected[item["network_id"], alias_key, alias].append(mark)
        return self._rejected

    async def _inbox(self) -> dict[Identity, list[AnyMark]]:
        found: dict[Identity, list[AnyMark]] = defaultdict(list)
        async for item in self._api.items("/inbox", {"project_id": self._plan.project}):
            data = item["data"]
            found[item["network_id"], item["alias_key"], item["alias"]].append((data.get("boot"), data.get("seq")))
        return found

    async def _look(self) -> Pipeline:
        try:
            gateways = [await gateway_accounting(base, self._client) for base in self._plan.gateways]
            accounting = await self._api.get("/accounting", {"project_id": self._plan.project})
        except UnreachableError as error:
            return Pipeline(unreachable=str(error))
        return Pipeline(tuple(gateways), tuple(accounting["sources"]))

    def _is_time_left(self) -> bool:
        return self._clock() < self._end_s

    def _tell(self, pipeline: Pipeline, missing: int | None) -> None:
        remaining_s = max(self._end_s - self._clock(), 0.0)
        self._report(Progress(pipeline.pending, pipeline.in_pipeline, missing, pipeline.unreachable, remaining_s))
