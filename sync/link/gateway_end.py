"""The gateway's end of the link, without I/O (protocol.py says how ends are used)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import zstandard

from protocols.block import read_head
from protocols.errors import UNREADABLE
from protocols.messages import Lane
from sync.link.errors import LateError, ViolationError
from sync.link.frames import (
    Accepted,
    Blocks,
    CommandDown,
    CommandProgress,
    Hello,
    Probe,
    ProbeAnswer,
    Refused,
    RegistryAsk,
    RegistryPart,
    Span,
    Welcome,
)
from sync.link.limits import (
    CREDIT_BYTES,
    CREDIT_BYTES_MIN,
    FRAME_BLOCKS_MAX,
    REGISTRY_BYTES_MAX,
    REGISTRY_PART_BYTES,
    WINDOW_BYTES_MIN,
    WINDOW_BYTES_START,
    Deadlines,
)
from sync.link.protocol import CHECKSUM, BlockRefused, End, GatewayEvent, clip
from sync.link.regroup import FEATURE, regroup
from sync.registry import RegistryChange

_decompressor: Final = zstandard.ZstdDecompressor()
_change_decoder: Final = msgspec.msgpack.Decoder(RegistryChange)


class _Request:
    """A BLOCKS frame without all of its answers."""

    __slots__ = ("open", "regrouped", "sent_s", "sizes", "spans")

    def __init__(self, spans: list[Span], sizes: list[int], regrouped: bool, sent_s: float) -> None:
        self.spans = spans
        self.sizes = sizes
        self.regrouped = regrouped
        self.sent_s = sent_s
        self.open = {(span.epoch, span.first): place for place, span in enumerate(spans)}


class GatewayEnd(End):
    """The gateway's end. It says HELLO by itself; blocks may be shipped once `welcome` is there and they fit."""

    def __init__(
        self, hello: Hello, *, now_s: float, deadlines: Deadlines, window_bytes_max: int = CREDIT_BYTES
    ) -> None:
        super().__init__(deadlines)
        self.welcome: Welcome | None = None
        self.credit_bytes = 0
        self.window_bytes = min(WINDOW_BYTES_START, window_bytes_max)
        self.in_flight_bytes = 0
        self.round_trip_s: float | None = None
        self.cloud_ahead_ms: int | None = None
        """The cloud's wall clock minus this machine's."""
        self._window_bytes_max = max(window_bytes_max, WINDOW_BYTES_MIN)
        self._features = hello.features
        self._regroups = False
        self._requests: dict[int, _Request] = {}  # in the order they were sent, so that the first is the latest due
        self._next_request = 0
        self._filled_by = -1
        """The last request that took more than half of the window: only who uses a window earns a wider one."""
        self._slowed_s = now_s
        self._started_s = now_s
        self._parts: list[bytes] = []
        self._probes = 0
        self._probe: Probe | None = None
        self._probed_s = now_s
        self.put(hello)

    @property
    def room_bytes(self) -> int:
        """Bytes of blocks that may be shipped now."""
        if self.welcome is None or len(self._requests) >= self.welcome.requests_max:
            return 0
        return max(0, min(self.credit_bytes, self.window_bytes) - self.in_flight_bytes)

    @property
    def frame_blocks_max(self) -> int:
        return FRAME_BLOCKS_MAX if self.welcome is None else min(FRAME_BLOCKS_MAX, self.welcome.frame_blocks_max)

    def fits(self, size_bytes: int) -> bool:
        """True if that much may be shipped now. With nothing in flight, the credit alone bounds it, so that a block
        larger than the window of a slow link travels alone."""
        return size_bytes <= (self.room_bytes if self._requests else self.credit_bytes)

    @property
    def idle(self) -> bool:
        """True while every block that was shipped is answered."""
        return not self._requests

    def ship(self, lane: Lane, blocks: Sequence[bytes], now_s: float) -> None:
        """Sends blocks: one, or several of about FRAME_BLOCK_BYTES together and at most `frame_blocks_max`; they have
        to fit. Raises a WireError if one is not a block, and then nothing is sent."""
        heads = [read_head(block) for block in blocks]
        sizes = list(map(len, blocks))
        assert self.fits(sum(sizes)), "the owner asks whether they fit"
        together = regroup(blocks) if self._regroups else None
        number = self._next_request
        priority = max(head.priority for head in heads)
        self.put(Blocks(number, lane, priority, () if together else tuple(blocks), together or b""))
        spans = [Span(head.epoch, head.first_seq, head.end_seq) for head in heads]
        self._requests[number] = _Request(spans, sizes, together is not None, now_s)
        self._next_request += 1
        self.in_flight_bytes += sum(sizes)
        if 2 * self.in_flight_bytes >= self.window_bytes:
            self._filled_by = number

    def report(self, progress: CommandProgress) -> None:
        self.put(progress)

    def ask_registry(self, revision: int) -> None:
        """Has the feed start again from `revision`; 0: from a snapshot."""
        self.put(RegistryAsk(revision))

    def receive(self, data: bytes, now_s: float, wall_ms: int) -> list[GatewayEvent]:
        frame = self.read(data)
        if frame is None:
            return []
        if self.welcome is None and not isinstance(frame, Welcome):
            raise ViolationError("order", f"{type(frame).__name__} before Welcome")
        match frame:
            case Welcome() if self.welcome is None:
                self.welcome = frame
                self._regroups = FEATURE in frame.features and FEATURE in self._features
                self._grant(frame.credit_bytes)
                self.cloud_ahead_ms = frame.server_time_ms - wall_ms
                return [frame]
            case Accepted():
                return list(self._accepted(frame, now_s))
            case Refused():
                return list(self._refused(frame, now_s))
            case RegistryPart():
                return list(self._registry_part(frame))
            case CommandDown():
                return [frame.command]
            case Probe():
                self.put(ProbeAnswer(frame.number, wall_ms))
                return []
            case ProbeAnswer():
                if self._probe is not None and frame.number == self._probe.number:
                    self._probe = None
                    self.round_trip_s = now_s - self._probed_s
                    self.cloud_ahead_ms = frame.time_ms + round(500 * self.round_trip_s) - wall_ms
                self._grant(frame.credit_bytes)
                return []
            case _:
                raise ViolationError("order", f"{type(frame).__name__} from the cloud")

    def tick(self, now_s: float) -> float:
        wait = self.deadlines
        if self.welcome is None:
            due_s = self._started_s + wait.greeting_s
            if now_s >= due_s:
                raise LateError("greeting", f"no WELCOME within {wait.greeting_s:g} s")
            return due_s
        wake_s = self._probed_s + wait.probe_every_s
        if self._probe is None and now_s >= wake_s:
            self._probes += 1
            self._probe = Probe(self._probes)
            self._probed_s = now_s
            self.put(self._probe)
        if self._probe is not None:
            wake_s = self._probed_s + wait.probe_s
            if now_s >= wake_s:
                raise LateError("probe", f"no answer to a probe within {wait.probe_s:g} s")
        if self._requests:
            due_s = next(iter(self._requests.values())).sent_s + wait.request_s
            if now_s >= due_s:
                raise LateError("request", f"blocks are without an answer after {wait.request_s:g} s")
            wake_s = min(wake_s, due_s)
        return wake_s

    def _grant(self, credit_bytes: int) -> None:
        if 0 < credit_bytes < CREDIT_BYTES_MIN:
            raise ViolationError("credit", f"credit of {credit_bytes:,} bytes cannot hold every block")
        self.credit_bytes = credit_bytes

    def _accepted(self, frame: Accepted, now_s: float) -> Sequence[Span]:
        request = self._request(frame.request)
        for span in frame.spans:
            if span.first >= span.end:
                raise ViolationError("span", f"an empty range of {span.epoch:016x} accepted")
            at = span.first
            while at < span.end:
                place = request.open.pop((span.epoch, at), -1)
                if place < 0:
                    raise ViolationError("span", f"{span.epoch:016x}/{at} accepted, which is not in flight")
                at = request.spans[place].end
                self.in_flight_bytes -= request.sizes[place]
            if at != span.end:
                raise ViolationError("span", f"{span.epoch:016x}/{span.end} accepted in the middle of a block")
        self._grant(frame.credit_bytes)
        self._settle(frame.request, request, now_s)
        return frame.spans

    def _refused(self, frame: Refused, now_s: float) -> Sequence[BlockRefused]:
        request = self._request(frame.request)
        if not -1 <= frame.place < len(request.spans):
            raise ViolationError("span", f"block {frame.place} of a request of {len(request.spans)} refused")
        spans = request.spans if frame.place < 0 else [request.spans[frame.place]]
        gone: list[BlockRefused] = []
        for span in spans:
            place = request.open.pop((span.epoch, span.first), -1)
            if place >= 0:
                self.in_flight_bytes -= request.sizes[place]
                gone.append(BlockRefused(span, frame.code, clip(frame.text)))
        if not gone:
            raise ViolationError("span", "a block that is not in flight was refused")
        if request.regrouped and frame.code == CHECKSUM:
            self._regroups = False  # written by another version of zstd: from now on as they are
        self._settle(frame.request, request, now_s)
        return gone

    def _request(self, number: int) -> _Request:
        request = self._requests.get(number)
        if request is None:
            raise ViolationError("request", f"an answer to request {number}, which has none open")
        return request

    def _settle(self, number: int, request: _Request, now_s: float) -> None:
        """Once a request has all its answers: the window follows how long that took."""
        if request.open:
            return
        del self._requests[number]
        if now_s - request.sent_s > self.deadlines.slow_s:
            if request.sent_s >= self._slowed_s:  # what was sent before the last halving says nothing of it
                self.window_bytes = max(WINDOW_BYTES_MIN, self.window_bytes // 2)
                self._slowed_s = now_s
        elif number <= self._filled_by:
            self.window_bytes = min(self._window_bytes_max, self.window_bytes + sum(request.sizes))

    def _registry_part(self, frame: RegistryPart) -> Sequence[RegistryChange]:
        if frame.raw_bytes > REGISTRY_BYTES_MAX or frame.parts * REGISTRY_PART_BYTES > 2 * REGISTRY_BYTES_MAX:
            raise ViolationError("limit", f"registry change of {frame.raw_bytes:,} bytes")
        if frame.part != len(self._parts) or len(frame.data) > REGISTRY_PART_BYTES:
            raise ViolationError("order", f"registry part {frame.part} after {len(self._parts)} parts")
        self._parts.append(frame.data)
        if len(self._parts) < frame.parts:
            return ()
        data, self._parts = b"".join(self._parts), []
        try:
            if zstandard.get_frame_parameters(data).content_size != frame.raw_bytes:
                raise ViolationError("malformed", "registry change: another size than announced")
            return (_change_decoder.decode(_decompressor.decompress(data)),)
        except (zstandard.ZstdError, *UNREADABLE) as error:
            raise ViolationError("malformed", f"registry change: {error}") from None
