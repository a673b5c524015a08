"""Every limit and deadline of the link, with its reason. Sizes of single things stand in protocols/limits.py."""

from __future__ import annotations

from typing import Final

import msgspec

from protocols.block import HEAD_BYTES
from protocols.limits import BLOCK_BYTES_MAX

CREDIT_BYTES_MIN: Final = BLOCK_BYTES_MAX + HEAD_BYTES
"""The least credit that is not 0 (a pause): the largest block has to fit, or it would wait for ever."""

CREDIT_BYTES: Final = 8 * 1024 * 1024
"""What a cloud allows one gateway by default: 700,000 messages in flight, and 8 GB for a thousand gateways that all
catch up at once."""

WINDOW_BYTES_START: Final = 64 * 1024
"""What a gateway has in flight at first, within the credit: 8 seconds at 64 kbit/s. It doubles with each round of quick
answers."""

WINDOW_BYTES_MIN: Final = 32 * 1024
"""The window of the slowest link: one frame's worth, 8 seconds at 32 kbit/s."""

QUEUE_S_LOW: Final = 0.1
QUEUE_S_HIGH: Final = 0.4
"""By how much answers may take longer than the quickest of lately, which is what a request waits behind others: below
the first the window grows, above the second it shrinks. What is live waits behind what is in flight, and more of it
than keeps the link busy makes nothing quicker."""

QUICKEST_OVER_S: Final = 30.0
"""The quickest answer is that of so long, or twice: routes change, and clouds become busy."""

BACKFILL_SHARE_MAX: Final = 3 / 4
"""Of the window and of the requests: what is left is for live, which then never waits for an answer to backfill."""

FRAME_SHARE_MAX: Final = 1 / 4
"""Of the window, for one frame: on a thin link, live waits behind one of backfill, and one answer that is lost never
holds all of it."""

FRAME_BLOCKS_MAX: Final = 512
"""Blocks in one BLOCKS frame: bounds how long unpacking one holds the cloud's event loop (4 ms)."""

FRAME_BLOCK_BYTES: Final = 256 * 1024
"""Blocks are collected for one frame up to this; a single larger one travels alone. More gains nothing in speed, and
delays what comes behind it."""

REGROUP_BYTES_MAX: Final = 16 * 1024
"""Blocks are compressed together if they are no larger than this on average before compression. Above, they compress as
well alone, and the cloud would spend time on compressing each once more to have its bytes."""

REGROUP_RAW_BYTES_MAX: Final = FRAME_BLOCKS_MAX * REGROUP_BYTES_MAX
"""What a frame of such blocks may unfold to: bounds what a hostile one makes the cloud allocate."""

REQUESTS_MAX: Final = 256
"""BLOCKS frames of one gateway that are being stored at a time: bounds tasks where frames are small."""

ANCHORS_MAX: Final = 1024
"""In one frame: all that a gateway keeps, 60 kB; a few in practice. Nothing is shipped before they are told."""

GAPS_MAX: Final = 256
"""In one frame, and there is one at a time: what the cloud takes up in one transaction."""

SPANS_MAX: Final = 4096
"""In HOLDINGS, RESEND, and each list of STANDING: 100 kB, and more ranges than a gateway has that is in order."""

SAMPLES_MAX: Final = 16
"""Refused records that STANDING shows: the newest few, for whoever looks for one."""

BOOKS_EVERY_S: Final = 2.0
"""How often a gateway looks for what is to be told beside its blocks."""

BOOKS_RETRY_S: Final = 2.0
"""When the cloud tries again to store what it could not."""

REGISTRY_PART_BYTES: Final = 1024 * 1024
"""A registry change travels in parts of this size, so that acknowledgements get in between."""

REGISTRY_BYTES_MAX: Final = 64 * 1024 * 1024
"""One registry change before compression: a snapshot of 300,000 devices. A gateway has some thousands."""

TEXT_BYTES_MAX: Final = 400
"""Explanations in frames: enough for a sentence, never a payload."""

RETRY_AFTER_S_MAX: Final = 300.0
"""The longest wait that a cloud can ask a gateway for: a mistaken value must not park it for a day."""

BACKOFF_S_MIN: Final = 0.5
BACKOFF_S_MAX: Final = 15.0
"""Waits between attempts are random between 0 and a bound that doubles from the first to the second of these: the
gateways of a cloud that was away come back over a quarter of a minute, not in one instant."""

STABLE_S: Final = 30.0
"""A connection that stood this long starts the backoff anew; a shorter one counts as one more failure."""

RESEND_S_MAX: Final = 60.0
"""What the cloud refused is sent again after a random wait that doubles up to this, so that it cannot fill the link."""


class Deadlines(msgspec.Struct, frozen=True):
    """How long each end waits for the other, in seconds."""

    open_s: float = 15.0
    """TCP, TLS and the WebSocket handshake together."""
    greeting_s: float = 15.0
    """HELLO after the connection opened; WELCOME after HELLO."""
    request_s: float = 30.0
    """ACCEPTED or REFUSED after BLOCKS. The window shrinks long before answers come this late (`slow_s`)."""
    slow_s: float = 4.0
    """An answer that takes longer halves the window."""
    probe_every_s: float = 10.0
    """Also how precisely deadlines are kept: no more than `request_s`."""
    probe_s: float = 30.0
    """PROBE_ANSWER after PROBE: it queues behind what is in flight."""
    idle_s: float = 300.0
    """A cloud that hears nothing for this long lets go. A gateway probes every few seconds, but the largest block takes
    this long at 64 kbit/s, and probes wait behind it; a dead connection is found sooner, by WebSocket's pings."""
    farewell_s: float = 5.0
    """Frames in work may end, and the WebSocket may close properly, before the connection is cut."""
