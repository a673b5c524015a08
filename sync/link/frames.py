"""The frames of the link. One binary WebSocket message each:

    offset  size  field
    0       1     version = 1
    1       1     type (FrameType)
    2       …     MessagePack array: the fields of the type's struct, in order

New fields are appended to a struct with a default: an older reader passes over them, a newer one fills them in. New
types are passed over, and counted, by readers that do not know them. Anything else needs a new version.
"""

from __future__ import annotations

import enum
from typing import Annotated, Final

import msgspec

from protocols.errors import UNREADABLE, LimitError, MalformedError, VersionError
from protocols.limits import LINK_FRAME_BYTES_MAX
from protocols.messages import Anchor, Command, CommandState, Gap, Lane, Priority

VERSION: Final = 1

FEATURE_BOOKS: Final = "books"
"""Both ends keep books beside the blocks: anchors, gaps, standing, holdings."""

FEATURE_COMMANDS: Final = "commands"
"""The gateway keeps commands durably and tells their states until the cloud says that it has them."""

FEATURE_CONFIGURATION: Final = "configuration"
"""The gateway takes listeners from the cloud, and tells what became of them."""

Count = Annotated[int, msgspec.Meta(ge=0)]


class FrameType(enum.IntEnum):
    HELLO = 1
    WELCOME = 2
    BLOCKS = 3
    ACCEPTED = 4
    REFUSED = 5
    REGISTRY = 6
    REGISTRY_ASK = 7
    COMMAND = 8
    COMMAND_STATE = 9
    PROBE = 10
    PROBE_ANSWER = 11
    GOODBYE = 12
    ANCHORS = 13
    ANCHORS_KEPT = 14
    GAPS = 15
    GAPS_KEPT = 16
    STANDING = 17
    HOLDINGS = 18
    RESEND = 19
    CREDIT = 20
    COMMAND_KEPT = 21
    CONFIGURATION = 22
    CONFIGURATION_RESULT = 23


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """Up, first: who speaks. (Which gateway it is says the token of the WebSocket's handshake.)"""

    software: str
    """Such as `tidegate-edge 0.1.0`."""
    epoch: Count
    """Of the log's present opening."""
    boot: Count
    """The machine's boot, as in Clock."""
    boot_ms: Count
    """The boot clock now."""
    wall_ms: int
    """The wall clock now, raw, Unix ms: with `boot_ms` and the cloud's time, an anchor for this boot."""
    registry_revision: Count
    """What the gateway's replica holds; 0: nothing."""
    features: tuple[str, ...] = ()
    """What this end can do beyond version 1. A feature is used if both ends name it."""
    configuration_revision: Count = 0
    """Of the pushed configuration that the gateway has answered last; 0: none."""


class Welcome(msgspec.Struct, frozen=True, array_like=True):
    """Down, the answer to HELLO: blocks may come."""

    project_id: str
    gateway_id: str
    credit_bytes: Count
    """Bytes of blocks, as they stand in the log, that may be without an answer at a time. 0: none for now."""
    server_time_ms: int
    frame_blocks_max: Count = 512
    requests_max: Count = 256
    """BLOCKS frames that may be without an answer at a time."""
    features: tuple[str, ...] = ()
    backfill_bytes: Count | None = None
    """How much of the credit backfill may use; None: all of it."""


class Span(msgspec.Struct, frozen=True, array_like=True, order=True):
    """Records `first` to `end` - 1 of an epoch."""

    epoch: Count
    first: Count
    end: Count


class Blocks(msgspec.Struct, frozen=True, array_like=True):
    """Up: blocks, either one by one in `blocks` or together in `regrouped` (regroup.py)."""

    request: Count
    """Rises within a connection."""
    lane: Lane
    priority: Priority
    """The highest of its blocks."""
    blocks: tuple[bytes, ...]
    regrouped: bytes = b""


class Accepted(msgspec.Struct, frozen=True, array_like=True):
    """Down: these records are the cloud's now, synced. Each span covers whole blocks of the request."""

    request: Count
    spans: tuple[Span, ...]
    credit_bytes: Count
    backfill_bytes: Count | None = None


class Refused(msgspec.Struct, frozen=True, array_like=True):
    """Down: a block was not taken; it counts as not sent. `checksum`: send it again, as it is."""

    request: Count
    place: int
    """Of the block in its request, from 0; -1: all of the request. (A damaged block cannot be told by its numbers.)"""
    code: str
    text: str


class RegistryPart(msgspec.Struct, frozen=True, array_like=True):
    """Down: a piece of a RegistryChange (sync/registry.py), in MessagePack, compressed by zstd and cut. Parts follow
    each other in order; other frames may come in between."""

    part: Count
    parts: Annotated[int, msgspec.Meta(ge=1)]
    raw_bytes: Count
    """Of the whole change before compression."""
    data: bytes


class RegistryAsk(msgspec.Struct, frozen=True, array_like=True):
    """Up: the feed does not fit the replica; start it again from this revision. 0: a snapshot."""

    revision: Count


class CommandDown(msgspec.Struct, frozen=True, array_like=True):
    """Down: a command for a device of the gateway."""

    command: Command


class CommandProgress(msgspec.Struct, frozen=True, array_like=True):
    """Up: what became of a command. *sent*: the gateway has it durably. Told again on each connection until it is
    answered by COMMAND_KEPT, where both ends have the feature `commands`."""

    command_id: str
    state: CommandState
    text: str
    at_ms: int
    """True time, as far as the gateway knows it."""


class CommandKept(msgspec.Struct, frozen=True, array_like=True):
    """Down: this state of the command is durable in the cloud, or the cloud knows of no such command."""

    command_id: str
    state: CommandState


class Probe(msgspec.Struct, frozen=True, array_like=True):
    """Either way; the other end answers at once."""

    number: Count


class ProbeAnswer(msgspec.Struct, frozen=True, array_like=True):
    number: Count
    time_ms: int
    """The answering end's wall clock, Unix ms."""
    credit_bytes: Count = 0
    """From the cloud: the credit now, so that no lost frame leaves a gateway paused."""
    backfill_bytes: Count | None = None


class Anchors(msgspec.Struct, frozen=True, array_like=True):
    """Up, answered by ANCHORS_KEPT: anchors that are durable here. Records that they date are not sent before."""

    request: Count
    anchors: tuple[Anchor, ...]


class AnchorsKept(msgspec.Struct, frozen=True, array_like=True):
    """Down: the anchors of this request are durable in the cloud too."""

    request: Count


class Gaps(msgspec.Struct, frozen=True, array_like=True):
    """Up, answered by GAPS_KEPT: what was lost here. Told again on each connection until it is answered."""

    request: Count
    gaps: tuple[Gap, ...]


class GapsKept(msgspec.Struct, frozen=True, array_like=True):
    """Down: these gaps are durable in the cloud; `has`: records among them that it has after all, and are accepted."""

    request: Count
    has: tuple[Span, ...]


class RefusedSample(msgspec.Struct, frozen=True, array_like=True):
    """Something that a listener did not take, lately."""

    at_ms: int
    network_id: str
    alias: str
    """Of the device, as far as it is known: its user name, else empty."""
    code: str


class Standing(msgspec.Struct, frozen=True, array_like=True):
    """Up, without an answer: where records are at the gateway, as of now."""

    at_ms: int
    """True time, as far as the gateway knows it."""
    complete_ms: int
    """All records received before this time, which is true as far as the gateway knew it when it recorded them, are
    accepted or gaps."""
    ends: tuple[tuple[int, int], ...]
    """(epoch, number after its newest record), of epochs with pending records and the one being written."""
    pending: tuple[Span, ...]
    """Neither accepted nor gaps, those in flight included; the newest where they are too many."""
    in_flight: tuple[Span, ...]
    refused: tuple[tuple[str, int], ...]
    """Refused before the log since the gateway's start: (code, records)."""
    refused_samples: tuple[RefusedSample, ...]
    """The newest few."""


class Holdings(msgspec.Struct, frozen=True, array_like=True):
    """Up, once after WELCOME: records that the cloud has accepted, as the gateway remembers it, and that the gateway
    still holds. What the cloud does not have (it was restored from a backup, say) it asks for by RESEND."""

    spans: tuple[Span, ...]


class Resend(msgspec.Struct, frozen=True, array_like=True):
    """Down: the cloud does not have these records; they count as not accepted."""

    spans: tuple[Span, ...]


class Credit(msgspec.Struct, frozen=True, array_like=True):
    """Down: the credit has changed. Both fields as in WELCOME."""

    credit_bytes: Count
    backfill_bytes: Count | None = None


class Configuration(msgspec.Struct, frozen=True, array_like=True):
    """Down: the listeners that the gateway is to have from now on. Sent after WELCOME to a gateway that named another
    revision, and when it changes."""

    revision: Count
    toml: str | None
    """None: those of its own file."""


class ListenerChange(msgspec.Struct, frozen=True, array_like=True):
    """What became of one listener."""

    name: str
    what: str
    """kept, started, restarted, closed; rolled back, not started or failed."""
    reason: str


class ConfigurationResult(msgspec.Struct, frozen=True, array_like=True):
    """Up: what became of a pushed configuration. Told again on each connection."""

    revision: Count
    refused: str = ""
    """Why it is not in force; empty: it is."""
    remedy: str = ""
    listeners: tuple[ListenerChange, ...] = ()


class Goodbye(msgspec.Struct, frozen=True, array_like=True):
    """Either way, last: why the connection is closed, and how long to stay away at least."""

    code: str
    text: str
    retry_after_ms: Count = 0


Frame = (
    Hello
    | Welcome
    | Blocks
    | Accepted
    | Refused
    | RegistryPart
    | RegistryAsk
    | CommandDown
    | CommandProgress
    | Probe
    | ProbeAnswer
    | Goodbye
    | Anchors
    | AnchorsKept
    | Gaps
    | GapsKept
    | Standing
    | Holdings
    | Resend
    | Credit
    | CommandKept
    | Configuration
    | ConfigurationResult
)

_STRUCTS: Final[dict[FrameType, type[Frame]]] = {
    FrameType.HELLO: Hello,
    FrameType.WELCOME: Welcome,
    FrameType.BLOCKS: Blocks,
    FrameType.ACCEPTED: Accepted,
    FrameType.REFUSED: Refused,
    FrameType.REGISTRY: RegistryPart,
    FrameType.REGISTRY_ASK: RegistryAsk,
    FrameType.COMMAND: CommandDown,
    FrameType.COMMAND_STATE: CommandProgress,
    FrameType.PROBE: Probe,
    FrameType.PROBE_ANSWER: ProbeAnswer,
    FrameType.GOODBYE: Goodbye,
    FrameType.ANCHORS: Anchors,
    FrameType.ANCHORS_KEPT: AnchorsKept,
    FrameType.GAPS: Gaps,
    FrameType.GAPS_KEPT: GapsKept,
    FrameType.STANDING: Standing,
    FrameType.HOLDINGS: Holdings,
    FrameType.RESEND: Resend,
    FrameType.CREDIT: Credit,
    FrameType.COMMAND_KEPT: CommandKept,
    FrameType.CONFIGURATION: Configuration,
    FrameType.CONFIGURATION_RESULT: ConfigurationResult,
}
_HEADS: Final = {struct: bytes((VERSION, number)) for number, struct in _STRUCTS.items()}
_DECODERS: Final = {int(number): msgspec.msgpack.Decoder(struct) for number, struct in _STRUCTS.items()}
_encoder: Final = msgspec.msgpack.Encoder()


def encode_frame(frame: Frame) -> bytes:
    data = _HEADS[type(frame)] + _encoder.encode(frame)
    if len(data) > LINK_FRAME_BYTES_MAX:
        raise LimitError(f"frame of {len(data):,} bytes; the limit is {LINK_FRAME_BYTES_MAX:,}")
    return data


def decode_frame(data: bytes | memoryview) -> Frame | None:
    """None: a type that this version does not know, to be passed over. Raises a WireError for what is not a frame."""
    if len(data) > LINK_FRAME_BYTES_MAX:
        raise LimitError(f"frame of {len(data):,} bytes; the limit is {LINK_FRAME_BYTES_MAX:,}")
    if len(data) < 2:
        raise MalformedError(f"frame of {len(data)} bytes is shorter than its 2-byte head")
    if data[0] != VERSION:
        raise VersionError(f"link version {data[0]}; this side speaks version {VERSION}")
    decoder = _DECODERS.get(data[1])
    if decoder is None:
        return None
    try:
        return decoder.decode(memoryview(data)[2:])
    except UNREADABLE as error:
        raise MalformedError(f"{FrameType(data[1]).name} frame: {error}") from None
