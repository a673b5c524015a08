"""The gateway's end of the link, without I/O (protocol.py says how ends are used)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

import msgspec
import zstandard

from protocols.block import read_head
from protocols.errors import UNREADABLE
from protocols.messages import Anchor, Gap, Lane
from sync.configuration import TOML_BYTES_MAX
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
    CREDIT_BYTES,
    FRAME_BLOCK_BYTES,
    REGISTRY_BYTES_MAX,
    REGISTRY_PART_BYTES,
    WINDOW_BYTES_START,
    Deadlines,
)
from sync.link.ports import Room
from sync.link.protocol import CHECKSUM, Awaited, BlockRefused, End, GatewayEvent, Kept, clip
from sync.link.regroup import FEATURE, regroup
from sync.link.window import NO_ROOM, Window
from sync.registry import RegistryChange

_decompressor: Final = zstandard.ZstdDecompressor()
_change_decoder: Final = msgspec.msgpack.Decoder(RegistryChange)


class _Request(Awaited):
    """A BLOCKS frame without all of its answers."""

    __slots__ = ("lane", "open", "regrouped", "sizes", "spans")

    def __init__(self, lane: Lane, spans: list[Span], sizes: list[int], regrouped: bool, sent_s: float) -> None:
        super().__init__(sent_s)
        self.lane = lane
        self.spans = spans
        self.sizes = sizes
        self.regrouped = regrouped
        self.open = {(span.epoch, span.first): place for place, span in enumerate(spans)}


class _Telling(Awaited):
    """An ANCHORS or GAPS frame."""

    __slots__ = ("told",)

    def __init__(self, told: Anchors | Gaps, sent_s: float) -> None:
        super().__init__(sent_s)
        self.told = told


class _Probing(Awaited):
    __slots__ = ("number",)

    def __init__(self, number: int, sent_s: float) -> None:
        super().__init__(sent_s)
        self.number = number


class GatewayEnd(End):
    """The gateway's end. It says HELLO by itself; blocks may be shipped once `welcome` is there and they fit."""

    def __init__(
        self,
        hello: Hello,
        *,
        now_s: float,
        deadlines: Deadlines,
        window_bytes: int = WINDOW_BYTES_START,
        window_bytes_max: int = CREDIT_BYTES,
        frame_bytes_max: int = FRAME_BLOCK_BYTES,
    ) -> None:
        """`window_bytes`: to begin with."""
        super().__init__(deadlines, now_s)
        self.welcome: Welcome | None = None
        self.books = False
        """Both ends have the feature."""
        self.keeps_commands = False
        """Both ends have the feature."""
        self.is_configured = False
        """Both ends have the feature."""
        self.window = Window(
            window_bytes,
            now_s=now_s,
            bytes_max=window_bytes_max,
            frame_bytes_max=frame_bytes_max,
            slow_s=deadlines.slow_s,
        )
        self.round_trip_s: float | None = None
        self.cloud_ahead_ms: int | None = None
        """The cloud's wall clock minus this machine's."""
        self._features = hello.features
        self._regroups = False
        self._requests: dict[int, _Request] = {}  # in the order they were sent, so that the first is the latest due
        self._next_request = 0
        self._tellings: dict[int, _Telling] = {}
        self._next_telling = 0
        self._started_s = now_s
        self._parts: list[bytes] = []
        self._probes = 0
        self._probe: _Probing | None = None
        self._probed_s = now_s
        self.put(hello)

    def room(self) -> Room:
        """What may be shipped now."""
        return NO_ROOM if self.welcome is None else self.window.room()

    def fits(self, lane: Lane, size_bytes: int) -> bool:
        """Whether that much may be shipped now."""
        return self.welcome is not None and self.window.fits(lane, size_bytes)

    @property
    def idle(self) -> bool:
        """True while every block that was shipped is answered."""
        return not self._requests

    def ship(self, lane: Lane, blocks: Sequence[bytes], now_s: float) -> None:
        """Sends blocks: one, or several of about FRAME_BLOCK_BYTES together and at most `frame_blocks_max`; they have
        to fit. Raises a WireError if one is not a block, and then nothing is sent."""
        heads = [read_head(block) for block in blocks]
        sizes = list(map(len, blocks))
        size = sum(sizes)
        assert self.fits(lane, size), "the owner asks whether they fit"
        together = regroup(blocks) if self._regroups else None
        number = self._next_request
        priority = max(head.priority for head in heads)
        spans = [Span(head.epoch, head.first_seq, head.end_seq) for head in heads]
        request = self._requests[number] = _Request(lane, spans, sizes, together is not None, now_s)
        self.put(Blocks(number, lane, priority, () if together else tuple(blocks), together or b""), request)
        self._next_request += 1
        self.window.take(lane, size, now_s)

    def tell_anchors(self, anchors: Sequence[Anchor], now_s: float) -> None:
        """Up to ANCHORS_MAX; a Kept will come. One request at a time."""
        self._tell(Anchors(self._next_telling, tuple(anchors)), now_s)

    def tell_gaps(self, gaps: Sequence[Gap], now_s: float) -> None:
        """Up to GAPS_MAX; a Kept will come. One request at a time."""
        self._tell(Gaps(self._next_telling, tuple(gaps)), now_s)

    def is_telling(self, kind: type[Anchors | Gaps]) -> bool:
        """Whether a request of this kind is without an answer."""
        return any(isinstance(telling.told, kind) for telling in self._tellings.values())

    def say(self, what: Standing | Holdings) -> None:
        """Without an answer; but RESEND may follow HOLDINGS."""
        self.put(what)

    def report(self, progress: CommandProgress) -> None:
        self.put(progress)

    def tell_configuration(self, result: ConfigurationResult) -> None:
        """To a cloud that has the feature."""
        if self.is_configured:
            self.put(result)

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
                self.books = FEATURE_BOOKS in frame.features and FEATURE_BOOKS in self._features
                self.keeps_commands = FEATURE_COMMANDS in frame.features and FEATURE_COMMANDS in self._features
                self.is_configured = FEATURE_CONFIGURATION in frame.features and FEATURE_CONFIGURATION in self._features
                self.window.open(frame)
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
            case CommandKept():
                return [frame]
            case Configuration() if self.is_configured:
                if frame.toml is not None and len(frame.toml.encode()) > TOML_BYTES_MAX:
                    raise ViolationError("limit", f"a configuration of more than {TOML_BYTES_MAX:,} bytes")
                return [frame]
            case Probe():
                self.put(ProbeAnswer(frame.number, wall_ms))
                return []
            case ProbeAnswer():
                if self._probe is not None and frame.number == self._probe.number:
                    self.round_trip_s = now_s - (self._probe.written_s or self._probe.sent_s)
                    self.cloud_ahead_ms = frame.time_ms + round(500 * self.round_trip_s) - wall_ms
                    self._probe = None
                self.window.grant(frame)
                return [frame]
            case AnchorsKept():
                return [self._kept(frame.request, Anchors, ())]
            case GapsKept():
                return [self._kept(frame.request, Gaps, frame.has)]
            case Resend():
                return [frame]
            case Credit():
                self.window.grant(frame)
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
            self._probe = _Probing(self._probes, now_s)
            self._probed_s = now_s
            self.put(Probe(self._probes), self._probe)
        if self._probe is not None:
            wake_s = self.due_s(self._probe, wait.probe_s)
            if now_s >= wake_s:
                raise LateError("probe", f"no answer to a probe within {wait.probe_s:g} s")
        for awaited in itertools.chain(itertools.islice(self._requests.values(), 1), self._tellings.values()):
            due_s = self.due_s(awaited, wait.request_s)
            if now_s >= due_s:
                what = "blocks are" if isinstance(awaited, _Request) else "anchors or gaps are"
                raise LateError("request", f"{what} without an answer after {wait.request_s:g} s")
            wake_s = min(wake_s, due_s)
        return wake_s

    def _tell(self, told: Anchors | Gaps, now_s: float) -> None:
        telling = self._tellings[told.request] = _Telling(told, now_s)
        self._next_telling += 1
        self.put(told, telling)

    def _kept(self, number: int, kind: type[Anchors | Gaps], has: tuple[Span, ...]) -> Kept:
        telling = self._tellings.pop(number, None)
        if telling is None or not isinstance(telling.told, kind):
            raise ViolationError("request", f"{kind.__name__} {number} kept, which were not told")
        return Kept(telling.told, has)

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
                self.window.release(request.lane, request.sizes[place])
            if at != span.end:
                raise ViolationError("span", f"{span.epoch:016x}/{span.end} accepted in the middle of a block")
        self.window.grant(frame)
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
                self.window.release(request.lane, request.sizes[place])
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
        self.window.settle(sum(request.sizes), request.sent_s, now_s)

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
