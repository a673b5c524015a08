"""The cloud's end of the link, without I/O (protocol.py says how ends are used)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import zstandard

from protocols.errors import WireError
from protocols.messages import Command
from sync.configuration import CHANGES_MAX
from sync.link.errors import LateError, ViolationError
from sync.link.frames import (
    FEATURE_BOOKS,
    FEATURE_COMMANDS,
    FEATURE_CONFIGURATION,
    Accepted,
    Anchors,
    AnchorsKept,
    Blocks,
    CommandDown,
    CommandKept,
    CommandProgress,
    Configuration,
    ConfigurationResult,
    Credit,
    Gaps,
    GapsKept,
    Hello,
    Holdings,
    Probe,
    ProbeAnswer,
    Refused,
    RegistryAsk,
    RegistryPart,
    Resend,
    Span,
    Standing,
    Welcome,
)
from sync.link.limits import (
    ANCHORS_MAX,
    FRAME_BLOCKS_MAX,
    GAPS_MAX,
    REGISTRY_BYTES_MAX,
    REGISTRY_PART_BYTES,
    REQUESTS_MAX,
    SAMPLES_MAX,
    SPANS_MAX,
    Deadlines,
)
from sync.link.protocol import CHECKSUM, CloudEvent, End, Shipped, Told, clip
from sync.link.regroup import FEATURE, ungroup
from sync.registry import RegistryChange

_compressor: Final = zstandard.ZstdCompressor(level=3)


class CloudEnd(End):
    """The cloud's end. Answer Hello by `greet`, each Shipped by `accept` and `refuse`, all of its blocks once; Anchors
    and Gaps by `keep`."""

    def __init__(self, *, now_s: float, deadlines: Deadlines) -> None:
        super().__init__(deadlines, now_s)
        self.hello: Hello | None = None
        self.in_flight_bytes = 0
        self.frames_damaged = 0
        """BLOCKS frames that could not be unpacked, and were refused whole."""
        self.books = False
        """Both ends have the feature."""
        self.keeps_commands = False
        """Both ends have the feature."""
        self.configures = False
        """Both ends have the feature."""
        self._credit = Credit(0)
        self._allowed_bytes = 0  # the most that was ever granted: a gateway may still be using it
        self._requests: dict[int, int] = {}  # bytes of each, unanswered
        self._last_request = -1
        self._told: dict[type[Anchors | Gaps], int] = {}  # requests without an answer: one of each kind
        self._heard_s = now_s

    def greet(
        self,
        project_id: str,
        gateway_id: str,
        credit: Credit,
        server_time_ms: int,
        *,
        books: bool = False,
        configures: bool = False,
    ) -> None:
        """`books`: whether this cloud keeps them; `configures`: whether it pushes configurations."""
        assert self.hello is not None, "the gateway says HELLO first"
        self._grant(credit)
        self.books = books and FEATURE_BOOKS in self.hello.features
        self.keeps_commands = FEATURE_COMMANDS in self.hello.features
        self.configures = configures and FEATURE_CONFIGURATION in self.hello.features
        ours = [FEATURE, FEATURE_COMMANDS]
        ours += [FEATURE_BOOKS] if books else []
        ours += [FEATURE_CONFIGURATION] if configures else []
        self.put(
            Welcome(
                project_id,
                gateway_id,
                credit.credit_bytes,
                server_time_ms,
                FRAME_BLOCKS_MAX,
                REQUESTS_MAX,
                tuple(feature for feature in ours if feature in self.hello.features),
                credit.backfill_bytes,
            )
        )

    def credit(self, credit: Credit) -> None:
        """It is another from now on."""
        self._grant(credit)
        if self.books:  # others learn it by the next answer
            self.put(credit)

    def keep(self, told: Anchors | Gaps, has: Sequence[Span] = ()) -> None:
        """They are durable; `has`: records of the gaps that are here."""
        del self._told[type(told)]
        if isinstance(told, Anchors):
            self.put(AnchorsKept(told.request))
        else:
            self.put(GapsKept(told.request, tuple(has)))

    def resend(self, spans: Sequence[Span]) -> None:
        """Records of the gateway's holdings that are not here."""
        for at in range(0, len(spans), SPANS_MAX):
            self.put(Resend(tuple(spans[at : at + SPANS_MAX])))

    def accept(self, request: int, spans: Sequence[Span], size_bytes: int) -> None:
        """Answers for blocks of `size_bytes` together. `spans` that follow each other become one."""
        self._release(request, size_bytes)
        merged: list[Span] = []
        for span in spans:
            last = merged[-1] if merged else None
            if last is not None and (last.epoch, last.end) == (span.epoch, span.first):
                merged[-1] = Span(span.epoch, last.first, span.end)
            else:
                merged.append(span)
        self.put(Accepted(request, tuple(merged), self._credit.credit_bytes, self._credit.backfill_bytes))

    def refuse(self, request: int, place: int, size_bytes: int, code: str, text: str) -> None:
        """Answers for the block at `place`; -1: for all of the request."""
        self._release(request, size_bytes)
        self.put(Refused(request, place, code, clip(text)))

    def registry(self, change: RegistryChange) -> None:
        raw = msgspec.msgpack.encode(change)
        if len(raw) > REGISTRY_BYTES_MAX:
            raise ValueError(f"registry change of {len(raw):,} bytes; the limit is {REGISTRY_BYTES_MAX:,}")
        data = _compressor.compress(raw)
        cuts = range(0, len(data), REGISTRY_PART_BYTES)
        for part, at in enumerate(cuts):
            self.put(RegistryPart(part, len(cuts), len(raw), data[at : at + REGISTRY_PART_BYTES]))

    def command(self, command: Command) -> None:
        self.put(CommandDown(command))

    def command_kept(self, kept: CommandKept) -> None:
        """Answers a state of a command that was told."""
        if self.keeps_commands:
            self.put(kept)

    def configuration(self, configuration: Configuration) -> None:
        """For a gateway that has the feature."""
        assert self.configures, "an older gateway would pass over it"
        self.put(configuration)

    def receive(self, data: bytes, now_s: float, wall_ms: int) -> list[CloudEvent]:
        self._heard_s = now_s
        frame = self.read(data)
        if frame is None:
            return []
        if (self.hello is None) != isinstance(frame, Hello):
            raise ViolationError("order", f"{type(frame).__name__} {'before' if self.hello is None else 'after'} Hello")
        match frame:
            case Hello():
                self.hello = frame
                return [frame]
            case Blocks():
                return self._blocks(frame)
            case RegistryAsk() | CommandProgress():
                return [frame]
            case ConfigurationResult() if self.configures:
                if frame.revision >= 1 << 63:
                    raise ViolationError("limit", f"configuration revision {frame.revision} is no 63-bit number")
                if len(frame.listeners) > CHANGES_MAX:
                    raise ViolationError("limit", f"what became of {len(frame.listeners):,} listeners")
                return [frame]
            case Anchors() | Gaps() | Standing() | Holdings() if self.books:
                _check_told(frame)
                if isinstance(frame, Anchors | Gaps):
                    self._open(frame)
                return [frame]
            case Probe():
                credit = self._credit
                self.put(ProbeAnswer(frame.number, wall_ms, credit.credit_bytes, credit.backfill_bytes))
                return []
            case ProbeAnswer():
                return []
            case _:
                raise ViolationError("order", f"{type(frame).__name__} from a gateway")

    def tick(self, now_s: float) -> float:
        limit_s = self.deadlines.greeting_s if self.hello is None else self.deadlines.idle_s
        if now_s >= self._heard_s + limit_s:
            raise LateError("idle", f"nothing heard for {limit_s:g} s")
        return self._heard_s + limit_s

    def _grant(self, credit: Credit) -> None:
        self._credit = credit
        self._allowed_bytes = max(self._allowed_bytes, credit.credit_bytes)

    def _open(self, told: Anchors | Gaps) -> None:
        if type(told) in self._told:
            raise ViolationError("request", f"{type(told).__name__} before the last ones were answered")
        self._told[type(told)] = told.request

    def _blocks(self, frame: Blocks) -> list[CloudEvent]:
        if frame.request <= self._last_request:
            raise ViolationError("request", f"request {frame.request} after {self._last_request}")
        if len(self._requests) >= REQUESTS_MAX:
            raise ViolationError("limit", f"more than {REQUESTS_MAX} requests without an answer")
        self._last_request = frame.request
        if frame.regrouped:
            try:
                blocks = ungroup(frame.regrouped)
            except WireError as error:
                self.frames_damaged += 1
                self._requests[frame.request] = 0
                self.refuse(frame.request, -1, 0, CHECKSUM, f"{error.code}: {error.detail}")
                return []
        else:
            blocks = list(frame.blocks)
        if not 0 < len(blocks) <= FRAME_BLOCKS_MAX:
            raise ViolationError("limit", f"frame of {len(blocks)} blocks; allowed are 1 to {FRAME_BLOCKS_MAX}")
        size = sum(map(len, blocks))
        self.in_flight_bytes += size
        if self.in_flight_bytes > self._allowed_bytes:
            raise ViolationError(
                "credit", f"{self.in_flight_bytes:,} bytes in flight, {self._allowed_bytes:,} are allowed"
            )
        self._requests[frame.request] = size
        return [Shipped(frame.request, frame.lane, blocks)]

    def _release(self, request: int, size_bytes: int) -> None:
        left = self._requests[request] - size_bytes
        assert left >= 0, "each block is answered once"
        self.in_flight_bytes -= size_bytes
        if left:
            self._requests[request] = left
        else:
            del self._requests[request]


def _check_told(told: Told) -> None:
    match told:
        case Anchors():
            counts = [(len(told.anchors), ANCHORS_MAX)]
        case Gaps():
            counts = [(len(told.gaps), GAPS_MAX)]
        case Holdings():
            counts = [(len(told.spans), SPANS_MAX)]
        case Standing():
            lists = (told.ends, told.pending, told.in_flight, told.refused)
            counts = [*((len(one), SPANS_MAX) for one in lists), (len(told.refused_samples), SAMPLES_MAX)]
    for count, count_max in counts:
        if count > count_max:
            raise ViolationError("limit", f"{type(told).__name__} with {count:,} entries; allowed are {count_max:,}")
