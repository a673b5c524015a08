"""Anchors, gaps, standing, holdings and credit: the two state machines, face to face."""

from __future__ import annotations

import msgspec
import pytest

from protocols.messages import Anchor, Gap, GapKind, Lane
from sync.link import frames
from sync.link.errors import LateError, ViolationError
from sync.link.frames import FEATURE_BOOKS, Anchors, Credit, Gaps, Holdings, Resend, Span, Standing, encode_frame
from sync.link.limits import (
    ANCHORS_MAX,
    BACKFILL_SHARE_MAX,
    CREDIT_BYTES_MIN,
    FRAME_SHARE_MAX,
    GAPS_MAX,
    SAMPLES_MAX,
    SPANS_MAX,
)
from sync.link.protocol import Kept
from tests.sync.link.blocks import BASE_MS, blocks, hello, large_blocks
from tests.sync.link.test_ends import CREDIT, DEADLINES, Pair

ANCHOR = Anchor(1, 2, BASE_MS, 4, "cloud")
GAP = Gap(7, 3, 9, GapKind.EVICTED, BASE_MS, BASE_MS + 1, BASE_MS + 2)
STANDING = Standing(BASE_MS, BASE_MS, ((7, 9),), (Span(7, 3, 9),), (), (), ())


class BooksPair(Pair):
    """Both ends keep books, unless one is said not to."""

    def __init__(self, *, ours: bool = True, theirs: bool = True, credit: Credit | None = None) -> None:
        super().__init__(greet=False, said=hello(features=(FEATURE_BOOKS,) if ours else ()))
        self.up()
        self.cloud.greet("demo", "quay-1", credit or Credit(CREDIT), BASE_MS, books=theirs)
        self.down()


def test_anchors_are_told_and_kept() -> None:
    pair = BooksPair()
    pair.gateway.tell_anchors([ANCHOR], pair.now_s)
    assert pair.gateway.is_telling(Anchors)
    (told,) = pair.up()
    assert isinstance(told, Anchors)
    assert told.anchors == (ANCHOR,)
    pair.cloud.keep(told)
    assert pair.down() == [Kept(told)]
    assert not pair.gateway.is_telling(Anchors)


def test_gaps_are_told_and_what_the_cloud_has_after_all_comes_back() -> None:
    pair = BooksPair()
    for has in ((), (Span(7, 3, 5),)):
        pair.gateway.tell_gaps([GAP], pair.now_s)
        (told,) = pair.up()
        assert isinstance(told, Gaps)
        pair.cloud.keep(told, has)
        assert pair.down() == [Kept(told, has)]


def test_standing_and_holdings_go_up_and_what_is_missing_comes_back() -> None:
    pair = BooksPair()
    holdings = Holdings((Span(7, 0, 3),))
    pair.gateway.say(holdings)
    pair.gateway.say(STANDING)
    assert pair.up() == [holdings, STANDING]
    pair.cloud.resend([])
    pair.cloud.resend([Span(7, 1, 2)])
    assert pair.down() == [Resend((Span(7, 1, 2),))]


def test_more_missing_than_one_frame_holds_comes_in_several() -> None:
    pair = BooksPair()
    missing = [Span(7, 2 * n, 2 * n + 1) for n in range(SPANS_MAX + 1)]
    pair.cloud.resend(missing)
    events = pair.down()
    assert [span for event in events if isinstance(event, Resend) for span in event.spans] == missing
    assert len(events) == 2


@pytest.mark.parametrize(("ours", "theirs"), [(False, True), (True, False), (False, False)])
def test_an_end_without_books_is_told_of_none(ours: bool, theirs: bool) -> None:
    pair = BooksPair(ours=ours, theirs=theirs)
    assert not pair.gateway.books
    assert not pair.cloud.books
    pair.cloud.credit(Credit(CREDIT, 0))
    assert pair.cloud.take_outgoing() == [], "an older gateway has no word for it"
    pair.accept(pair.ship(blocks(1)))
    assert pair.gateway.window.is_backfill_paused, "it comes with the next answer"
    for frame in (Anchors(0, (ANCHOR,)), Gaps(0, (GAP,)), STANDING, Holdings(())):
        with pytest.raises(ViolationError, match="order"):
            pair.cloud.receive(encode_frame(frame), 100.0, BASE_MS)


@pytest.mark.parametrize(
    "frame",
    [
        Anchors(0, (ANCHOR,) * (ANCHORS_MAX + 1)),
        Gaps(0, (GAP,) * (GAPS_MAX + 1)),
        Holdings((Span(7, 0, 1),) * (SPANS_MAX + 1)),
        frames.Standing(0, 0, (), (Span(7, 0, 1),) * (SPANS_MAX + 1), (), (), ()),
        frames.Standing(0, 0, (), (), (), (), (frames.RefusedSample(0, "", "", ""),) * (SAMPLES_MAX + 1)),
    ],
)
def test_books_that_are_longer_than_allowed_end_the_connection(frame: frames.Frame) -> None:
    with pytest.raises(ViolationError, match="limit"):
        BooksPair().cloud.receive(encode_frame(frame), 100.0, BASE_MS)


def test_one_request_of_each_kind_is_open_at_a_time() -> None:
    pair = BooksPair()
    pair.gateway.tell_anchors([ANCHOR], pair.now_s)
    pair.gateway.tell_gaps([GAP], pair.now_s)
    assert len(pair.up()) == 2
    for frame in (Anchors(2, (ANCHOR,)), Gaps(3, (GAP,))):
        with pytest.raises(ViolationError, match="request"):
            pair.cloud.receive(encode_frame(frame), 100.0, BASE_MS)


@pytest.mark.parametrize("frame", [frames.AnchorsKept(1), frames.GapsKept(0, ()), frames.AnchorsKept(7)])
def test_an_answer_to_what_was_not_told_ends_the_connection(frame: frames.Frame) -> None:
    pair = BooksPair()
    pair.gateway.tell_anchors([ANCHOR], pair.now_s)
    pair.gateway.tell_gaps([GAP], pair.now_s)
    with pytest.raises(ViolationError, match="request"):
        pair.gateway.receive(encode_frame(frame), 100.0, BASE_MS)


@pytest.mark.parametrize("kind", [Anchors, Gaps])
def test_books_without_an_answer_end_the_connection_at_their_deadline(kind: type[Anchors | Gaps]) -> None:
    pair = BooksPair()
    if kind is Anchors:
        pair.gateway.tell_anchors([ANCHOR], pair.now_s)
    else:
        pair.gateway.tell_gaps([GAP], pair.now_s)
    due_s = pair.now_s + DEADLINES.request_s
    while pair.now_s < due_s - 0.01:
        pair.now_s = min(pair.gateway.tick(pair.now_s), due_s - 0.01)
        pair.up()
        pair.down()
    with pytest.raises(LateError, match="anchors or gaps are without an answer"):
        pair.gateway.tick(due_s)


def test_a_frame_that_takes_long_to_send_has_its_deadline_from_when_it_is_out() -> None:
    pair = Pair()
    pair.gateway.ship(Lane.BACKFILL, blocks(1), pair.now_s)
    pair.gateway.tell_anchors([ANCHOR], pair.now_s)
    pair.gateway.next_outgoing()
    started_s = pair.now_s
    while pair.now_s < started_s + 4 * DEADLINES.request_s:
        pair.now_s += DEADLINES.request_s - 1
        pair.gateway.moved(pair.now_s, written=False)
        pair.gateway.tick(pair.now_s)
    pair.gateway.moved(pair.now_s, written=True)
    with pytest.raises(LateError):
        pair.gateway.tick(pair.now_s + DEADLINES.request_s)
    assert pair.gateway.due_s(next(iter(pair.gateway._requests.values())), 30.0) == pair.now_s + 30.0


def test_what_is_out_is_not_given_more_time_by_what_is_sent_after_it() -> None:
    pair = Pair()
    pair.gateway.ship(Lane.LIVE, blocks(1), pair.now_s)
    pair.gateway.next_outgoing()
    pair.gateway.moved(pair.now_s, written=True)
    pair.gateway.ship(Lane.LIVE, blocks(1, first_seq=1), pair.now_s)
    pair.gateway.next_outgoing()
    late_s = pair.now_s + DEADLINES.request_s
    pair.gateway.moved(late_s - 1, written=False)
    with pytest.raises(LateError, match="blocks are without an answer"):
        pair.gateway.tick(late_s)


def test_credit_changes_as_it_is_told_and_bounds_backfill_alone() -> None:
    pair = BooksPair(credit=Credit(2 * CREDIT, CREDIT))
    assert pair.gateway.room().backfill_bytes_max > 0
    for backfill_bytes in (0, None, CREDIT):
        pair.cloud.credit(Credit(2 * CREDIT, backfill_bytes))
        pair.down()
        room = pair.gateway.room()
        assert room.bytes_max > 0
        assert (room.backfill_bytes_max == 0) == (backfill_bytes == 0)
        assert pair.gateway.fits(Lane.LIVE, 1000)
        assert pair.gateway.fits(Lane.BACKFILL, 1000) == (backfill_bytes != 0)


@pytest.mark.parametrize("credit", [Credit(CREDIT_BYTES_MIN - 1), Credit(CREDIT, CREDIT_BYTES_MIN - 1)])
def test_a_credit_that_cannot_hold_every_block_is_no_credit(credit: Credit) -> None:
    pair = BooksPair()
    pair.cloud.credit(credit)
    with pytest.raises(ViolationError, match="credit"):
        pair.down()


def test_backfill_leaves_a_part_of_the_window_to_live() -> None:
    pair = Pair(said=hello(features=()))
    window = pair.gateway.window
    (block,) = blocks(1, 100)
    first = 0
    while (room := pair.gateway.room()).backfill_bytes_max:
        assert room.backfill_bytes_max <= FRAME_SHARE_MAX * window.size_bytes
        for made in blocks(room.backfill_bytes_max // len(block), 100, first_seq=first):
            if pair.gateway.fits(Lane.BACKFILL, len(made)):
                pair.gateway.ship(Lane.BACKFILL, [made], pair.now_s)
                first += 100
    assert 0.4 * window.size_bytes < window.backfill_in_flight_bytes <= BACKFILL_SHARE_MAX * window.size_bytes
    assert pair.gateway.room().bytes_max > 0
    pair.gateway.ship(Lane.LIVE, blocks(1, 100, epoch=8), pair.now_s)
    assert window.in_flight_bytes == window.backfill_in_flight_bytes + len(blocks(1, 100, epoch=8)[0])


def test_a_large_block_of_backfill_travels_beside_live_but_alone_in_its_lane() -> None:
    pair = BooksPair(credit=Credit(2 * CREDIT, CREDIT))
    first, second = large_blocks(2)
    pair.gateway.ship(Lane.LIVE, blocks(1, epoch=8), pair.now_s)
    assert pair.gateway.fits(Lane.BACKFILL, len(first))
    pair.gateway.ship(Lane.BACKFILL, [first], pair.now_s)
    assert not pair.gateway.fits(Lane.BACKFILL, len(second))
    assert pair.gateway.room().bytes_max > 0, "live keeps its part of the window"
    pair.up()
    pair.cloud.credit(Credit(2 * CREDIT, 0))
    pair.down()
    pair.cloud.accept(1, [Span(7, 0, 8)], len(first))
    pair.down()
    assert pair.gateway.window.backfill_in_flight_bytes == 0
    assert not pair.gateway.fits(Lane.BACKFILL, len(second)), "the cloud gives it no credit"


def test_lanes_are_released_each_in_its_own() -> None:
    pair = BooksPair()
    shipped = [pair.ship(blocks(3, 2), Lane.BACKFILL), pair.ship(blocks(3, 2, first_seq=6), Lane.LIVE)]
    window = pair.gateway.window
    live = sum(map(len, shipped[1].blocks))
    pair.accept(shipped[0])
    assert (window.in_flight_bytes, window.backfill_in_flight_bytes) == (live, 0)
    pair.cloud.refuse(1, -1, live, "busy", "")
    pair.down()
    assert (window.in_flight_bytes, window.backfill_in_flight_bytes) == (0, 0)


def test_a_large_block_waits_for_room_within_the_credit_of_both_lanes() -> None:
    pair = BooksPair(credit=Credit(CREDIT))
    (large,) = large_blocks(1)
    window = pair.gateway.window
    window.take(Lane.LIVE, CREDIT - len(large) + 1, pair.now_s)
    assert not pair.gateway.fits(Lane.BACKFILL, len(large))
    window.release(Lane.LIVE, 1)
    assert pair.gateway.fits(Lane.BACKFILL, len(large))


def test_an_older_cloud_gives_credit_to_both_lanes_together() -> None:
    pair = Pair(greet=False, said=hello(features=(FEATURE_BOOKS,)))
    welcome = b"\x01\x02" + msgspec.msgpack.encode(["demo", "quay-1", CREDIT, BASE_MS, 512, 256, []])
    pair.gateway.receive(welcome, pair.now_s, BASE_MS)
    assert not pair.gateway.books
    assert pair.gateway.room().backfill_bytes_max > 0
    assert pair.gateway.fits(Lane.BACKFILL, CREDIT)
    pair.gateway.ship(Lane.BACKFILL, blocks(1, 3), pair.now_s)
    pair.gateway.receive(b"\x01\x04" + msgspec.msgpack.encode([0, [[7, 0, 3]], CREDIT]), pair.now_s, BASE_MS)
    pair.gateway.receive(b"\x01\x0b" + msgspec.msgpack.encode([1, BASE_MS, CREDIT]), pair.now_s, BASE_MS)
    assert pair.gateway.idle
    assert pair.gateway.room().backfill_bytes_max > 0
