"""The two state machines, face to face, without loss."""

from __future__ import annotations

import hashlib
import itertools

import pytest
import zstandard

from protocols.messages import Command, CommandState, Lane, Priority
from sync.configuration import CHANGES_MAX, TOML_BYTES_MAX
from sync.link import frames
from sync.link.cloud_end import CloudEnd
from sync.link.errors import FarewellError, LateError, ViolationError
from sync.link.frames import (
    FEATURE_COMMANDS,
    FEATURE_CONFIGURATION,
    CommandKept,
    CommandProgress,
    Configuration,
    ConfigurationResult,
    Credit,
    Hello,
    RegistryAsk,
    Span,
    Welcome,
    encode_frame,
)
from sync.link.gateway_end import GatewayEnd
from sync.link.limits import (
    CREDIT_BYTES_MIN,
    QUEUE_S_HIGH,
    QUEUE_S_LOW,
    QUICKEST_OVER_S,
    REGISTRY_BYTES_MAX,
    REGISTRY_PART_BYTES,
    REQUESTS_MAX,
    RETRY_AFTER_S_MAX,
    WINDOW_BYTES_MIN,
    WINDOW_BYTES_START,
    Deadlines,
)
from sync.link.protocol import BlockRefused, CloudEvent, GatewayEvent, Shipped
from sync.registry import Alias, Device, RegistryChange
from tests.sync.link.blocks import BASE_MS, blocks, hello, spans

CREDIT = CREDIT_BYTES_MIN
DEADLINES = Deadlines()


class Pair:
    """Both ends, and a wire that is quick and whole."""

    def __init__(
        self,
        *,
        credit_bytes: int = CREDIT,
        greet: bool = True,
        said: Hello | None = None,
        configures: bool = False,
    ) -> None:
        self.now_s = 100.0
        self.said = said or hello()
        self.gateway = GatewayEnd(self.said, now_s=self.now_s, deadlines=DEADLINES)
        self.cloud = CloudEnd(now_s=self.now_s, deadlines=DEADLINES)
        if greet:
            assert self.up() == [self.said]
            self.cloud.greet("demo", "quay-1", Credit(credit_bytes), BASE_MS + 5000, configures=configures)
            (welcome,) = self.down()
            assert isinstance(welcome, Welcome)

    def up(self) -> list[CloudEvent]:
        sent = self.gateway.take_outgoing()
        return [event for data in sent for event in self.cloud.receive(data, self.now_s, BASE_MS)]

    def down(self) -> list[GatewayEvent]:
        sent = self.cloud.take_outgoing()
        return [event for data in sent for event in self.gateway.receive(data, self.now_s, BASE_MS)]

    def ship(self, made: list[bytes], lane: Lane = Lane.LIVE) -> Shipped:
        self.gateway.ship(lane, made, self.now_s)
        (shipped,) = self.up()
        assert isinstance(shipped, Shipped)
        return shipped

    def accept(self, shipped: Shipped) -> list[GatewayEvent]:
        self.cloud.accept(shipped.request, spans(shipped.blocks), sum(map(len, shipped.blocks)))
        return self.down()


def test_blocks_arrive_as_they_were_and_their_ranges_come_back_as_one() -> None:
    pair = Pair()
    made = blocks(5, 3)
    shipped = pair.ship(made, Lane.BACKFILL)
    assert (shipped.lane, shipped.blocks) == (Lane.BACKFILL, made)
    assert pair.gateway.window.in_flight_bytes == sum(map(len, made))
    assert pair.accept(shipped) == [Span(7, 0, 15)]
    assert pair.gateway.window.in_flight_bytes == pair.cloud.in_flight_bytes == 0
    assert pair.gateway.idle


def test_ranges_with_a_hole_stay_two() -> None:
    pair = Pair()
    made = [*blocks(1, 4), *blocks(1, 4, first_seq=10), *blocks(1, 4, epoch=8)]
    assert pair.accept(pair.ship(made)) == [Span(7, 0, 4), Span(7, 10, 14), Span(8, 0, 4)]


def test_the_frame_names_its_highest_priority() -> None:
    pair = Pair(said=hello(features=()))
    pair.gateway.ship(Lane.LIVE, [*blocks(1), *blocks(1, priority=Priority.ALARM)], 100.0)
    frame = frames.decode_frame(pair.gateway.take_outgoing()[0])
    assert isinstance(frame, frames.Blocks)
    assert frame.priority is Priority.ALARM


def test_requests_may_be_answered_in_any_order() -> None:
    pair = Pair()
    made = blocks(3, 2)
    shipped = [pair.ship([block]) for block in made]
    assert pair.accept(shipped[2]) == [Span(7, 4, 6)]
    assert pair.accept(shipped[0]) == [Span(7, 0, 2)]
    assert not pair.gateway.idle
    assert pair.accept(shipped[1]) == [Span(7, 2, 4)]
    assert pair.gateway.idle


def test_a_refused_block_is_named_and_its_neighbours_are_accepted() -> None:
    pair = Pair()
    made = blocks(3, 2)
    shipped = pair.ship(made)
    pair.cloud.refuse(shipped.request, 1, len(made[1]), "checksum", "CRC-32")
    pair.cloud.accept(shipped.request, spans([made[0], made[2]]), len(made[0]) + len(made[2]))
    assert pair.down() == [BlockRefused(Span(7, 2, 4), "checksum", "CRC-32"), Span(7, 0, 2), Span(7, 4, 6)]
    assert pair.gateway.idle
    assert pair.gateway.window.in_flight_bytes == 0


def test_blocks_that_cannot_be_unpacked_are_refused_and_then_travel_as_they_are() -> None:
    pair = Pair()
    made = blocks(20)
    pair.gateway.ship(Lane.LIVE, made, 100.0)
    (data,) = pair.gateway.take_outgoing()
    frame = frames.decode_frame(data)
    assert isinstance(frame, frames.Blocks)
    broken = frames.Blocks(frame.request, frame.lane, frame.priority, (), zstandard.compress(bytes(100)))
    assert pair.cloud.receive(encode_frame(broken), 100.0, BASE_MS) == []
    refused = pair.down()
    assert [event.span for event in refused if isinstance(event, BlockRefused)] == spans(made)
    assert pair.cloud.frames_damaged == 1
    assert pair.gateway.idle

    pair.gateway.ship(Lane.LIVE, made, 100.0)
    frame = frames.decode_frame(pair.gateway.take_outgoing()[0])
    assert isinstance(frame, frames.Blocks)
    assert frame.blocks == tuple(made)


@pytest.mark.parametrize("features", [(), ("regroup-zstd-0.1.0",)])
def test_blocks_travel_as_they_are_to_a_cloud_with_another_zstd(features: tuple[str, ...]) -> None:
    pair = Pair(said=hello(features=features))
    pair.gateway.ship(Lane.LIVE, blocks(20), 100.0)
    frame = frames.decode_frame(pair.gateway.take_outgoing()[0])
    assert isinstance(frame, frames.Blocks)
    assert len(frame.blocks) == 20


def test_nothing_fits_before_welcome_nor_without_credit() -> None:
    pair = Pair(greet=False)
    assert not pair.gateway.fits(Lane.LIVE, 1)
    pair = Pair(credit_bytes=0)
    assert pair.gateway.room().bytes_max == 0
    assert not pair.gateway.fits(Lane.LIVE, 1)


def test_the_window_doubles_while_it_is_full_and_answers_are_quick_and_halves_when_slow() -> None:
    pair = Pair(said=hello(features=()))
    block = blocks(1, 500)[0]
    seen = [pair.gateway.window.size_bytes]
    assert seen == [WINDOW_BYTES_START]
    for _ in range(3):
        shipped = []
        while pair.gateway.fits(Lane.LIVE, len(block)):
            shipped.append(pair.ship([block]))
        for one in shipped:
            pair.accept(one)
        seen.append(pair.gateway.window.size_bytes)
    assert all(1.7 * before < after <= 2 * before for before, after in itertools.pairwise(seen))

    first, second = pair.ship([block]), pair.ship([block])
    pair.now_s += DEADLINES.slow_s + 1
    pair.accept(first)
    pair.accept(second)
    assert pair.gateway.window.size_bytes == seen[-1] // 2, "two answers of one slow time halve it once"
    for _ in range(20):
        slow = pair.ship([block])
        pair.now_s += DEADLINES.slow_s + 1
        pair.accept(slow)
    assert pair.gateway.window.size_bytes == WINDOW_BYTES_MIN


def test_the_window_grows_no_more_once_answers_wait_behind_each_other_and_then_shrinks() -> None:
    pair = Pair(said=hello(features=()))
    block = blocks(1, 500)[0]

    def round_trip(answered_s: float) -> int:
        shipped = []
        while pair.gateway.fits(Lane.LIVE, len(block)):
            shipped.append(pair.ship([block]))
        pair.now_s += answered_s
        for one in shipped:
            pair.accept(one)
        return pair.gateway.window.size_bytes

    far_s = 0.6
    start = round_trip(far_s)
    assert start > WINDOW_BYTES_START, "a far cloud is no slow link"
    widened = round_trip(far_s + 0.9 * QUEUE_S_LOW)
    assert widened > start
    assert round_trip(far_s + 1.1 * QUEUE_S_LOW) == widened
    assert round_trip(far_s + 0.9 * QUEUE_S_HIGH) == widened
    assert round_trip(far_s + 1.1 * QUEUE_S_HIGH) == widened // 2
    pair.now_s += QUICKEST_OVER_S
    assert round_trip(far_s + 1.1 * QUEUE_S_HIGH) == widened // 4
    pair.now_s += QUICKEST_OVER_S
    assert round_trip(far_s + 1.1 * QUEUE_S_HIGH) > widened // 4, "by now it is what is usual"


def test_thin_traffic_does_not_widen_the_window() -> None:
    pair = Pair()
    for number in range(100):
        pair.accept(pair.ship(blocks(1, 5, first_seq=5 * number)))
    assert pair.gateway.window.size_bytes == WINDOW_BYTES_START


def test_a_block_larger_than_the_window_travels_alone() -> None:
    pair = Pair()
    block = blocks(1, 500)[0]
    pair.gateway.window.size_bytes = len(block) - 1
    assert pair.gateway.fits(Lane.LIVE, len(block))
    pair.ship([block])
    assert not pair.gateway.fits(Lane.LIVE, 1)


def test_requests_are_bounded_as_the_cloud_says() -> None:
    pair = Pair()
    for number in range(REQUESTS_MAX):
        pair.ship(blocks(1, first_seq=number))
    assert pair.gateway.room().bytes_max == 0
    assert not pair.gateway.fits(Lane.LIVE, 1)


def test_blocks_without_an_answer_end_the_connection_at_their_deadline() -> None:
    pair = Pair()
    answered, lost = pair.ship(blocks(1)), pair.ship(blocks(1, first_seq=1))
    assert lost.request == 1
    pair.now_s += 20
    pair.accept(answered)
    pair.gateway.tick(pair.now_s)
    pair.up()
    pair.down()
    pair.now_s += DEADLINES.request_s - 20 - 0.01
    assert pair.gateway.tick(pair.now_s) == pytest.approx(pair.now_s + 0.01)
    pair.up()
    with pytest.raises(LateError, match="request"):
        pair.gateway.tick(pair.now_s + 0.02)


def test_a_probe_measures_round_trip_and_clock_and_finds_a_cloud_that_hangs() -> None:
    pair = Pair()
    assert pair.gateway.cloud_ahead_ms == 5000
    pair.now_s = pair.gateway.tick(pair.now_s)
    assert pair.now_s == 100.0 + DEADLINES.probe_every_s
    pair.gateway.tick(pair.now_s)
    pair.up()
    pair.now_s += 0.08
    pair.down()
    assert pair.gateway.round_trip_s == pytest.approx(0.08)
    assert pair.gateway.cloud_ahead_ms == 40

    pair.now_s += DEADLINES.probe_every_s
    pair.now_s = pair.gateway.tick(pair.now_s)
    with pytest.raises(LateError, match="probe"):
        pair.gateway.tick(pair.now_s)


def test_a_probe_brings_credit_that_was_lost() -> None:
    pair = Pair(credit_bytes=0)
    pair.gateway.receive(encode_frame(frames.ProbeAnswer(1, BASE_MS, CREDIT)), 100.0, BASE_MS)
    assert pair.gateway.fits(Lane.LIVE, 1000)


def test_silence_ends_the_connection_at_either_end() -> None:
    pair = Pair(greet=False)
    assert pair.gateway.tick(100.0) == 100.0 + DEADLINES.greeting_s
    with pytest.raises(LateError, match="greeting"):
        pair.gateway.tick(100.0 + DEADLINES.greeting_s)
    with pytest.raises(LateError, match="idle"):
        pair.cloud.tick(100.0 + DEADLINES.greeting_s)
    pair = Pair()
    assert pair.cloud.tick(100.0 + DEADLINES.greeting_s) == 100.0 + DEADLINES.idle_s
    with pytest.raises(LateError, match="idle"):
        pair.cloud.tick(100.0 + DEADLINES.idle_s)


def test_goodbye_carries_how_long_to_stay_away_within_reason() -> None:
    pair = Pair()
    pair.cloud.goodbye("restart", "new version", 20.0)
    with pytest.raises(FarewellError, match="new version") as caught:
        pair.down()
    assert (caught.value.code, caught.value.retry_after_s) == ("restart", 20.0)
    pair = Pair()
    pair.cloud.goodbye("restart", "x" * 10_000, 1e9)
    with pytest.raises(FarewellError) as caught:
        pair.down()
    assert caught.value.retry_after_s == RETRY_AFTER_S_MAX
    assert len(caught.value.text) <= 400


def test_commands_go_down_and_what_became_of_them_up() -> None:
    pair = Pair()
    command = Command("c1", 12, "restart", b"\x00", BASE_MS)
    pair.cloud.command(command)
    assert pair.down() == [command]
    progress = CommandProgress("c1", CommandState.DELIVERED, "", BASE_MS)
    pair.gateway.report(progress)
    pair.gateway.ask_registry(3)
    assert pair.up() == [progress, RegistryAsk(3)]


@pytest.mark.parametrize("features", [(), (FEATURE_COMMANDS,)])
def test_states_of_commands_are_confirmed_to_a_gateway_that_knows_it(features: tuple[str, ...]) -> None:
    pair = Pair(said=hello(features=features))
    kept = CommandKept("c1", CommandState.SENT)
    pair.cloud.command_kept(kept)
    assert pair.gateway.keeps_commands is bool(features)
    assert pair.down() == ([kept] if features else [])


CONFIGURES = hello(features=(FEATURE_CONFIGURATION,))


def test_configurations_go_down_and_what_became_of_them_up() -> None:
    pair = Pair(said=CONFIGURES, configures=True)
    wanted = Configuration(BASE_MS, "x" * TOML_BYTES_MAX)
    pair.cloud.configuration(wanted)
    pair.cloud.configuration(Configuration(BASE_MS + 1, None))
    assert pair.down() == [wanted, Configuration(BASE_MS + 1, None)]
    result = ConfigurationResult(BASE_MS, "no", "mend it")
    pair.gateway.tell_configuration(result)
    assert pair.up() == [result]


@pytest.mark.parametrize(("said", "configures"), [(CONFIGURES, False), (hello(), True)])
def test_an_end_without_the_feature_is_told_nothing_of_configurations(said: Hello, configures: bool) -> None:
    pair = Pair(said=said, configures=configures)
    assert not pair.cloud.configures
    pair.gateway.tell_configuration(ConfigurationResult(BASE_MS))
    assert not pair.gateway.has_outgoing


def test_a_configuration_and_its_result_are_bounded() -> None:
    pair = Pair(said=CONFIGURES, configures=True)
    pair.cloud.configuration(Configuration(1, "ä" * (TOML_BYTES_MAX // 2 + 1)))
    with pytest.raises(ViolationError, match="65,536 bytes"):
        pair.down()
    pair.gateway.tell_configuration(
        ConfigurationResult(1, listeners=(frames.ListenerChange("a", "kept", ""),) * (CHANGES_MAX + 1))
    )
    with pytest.raises(ViolationError, match="513 listeners"):
        pair.up()
    pair.gateway.tell_configuration(ConfigurationResult(1 << 63))
    with pytest.raises(ViolationError, match="63-bit"):
        pair.up()


def test_a_large_snapshot_travels_in_parts_with_other_frames_in_between() -> None:
    devices = tuple(
        Device(i, "s", "pump", (Alias("demo", "serial", f"pump-{i}"),), None, (hashlib.sha256(b"%d" % i).hexdigest(),))
        for i in range(40_000)
    )
    change = RegistryChange("demo", 0, 9, devices=devices)
    pair = Pair()
    pair.cloud.registry(change)
    parts = pair.cloud.take_outgoing()
    assert len(parts) >= 2
    assert max(map(len, parts)) < REGISTRY_PART_BYTES + 100
    between = encode_frame(frames.CommandDown(Command("c1", 5, "restart", b"", BASE_MS)))
    arriving = [between, parts[0], between, *parts[1:]]
    events = [event for data in arriving for event in pair.gateway.receive(data, 100.0, BASE_MS)]
    assert [type(event) for event in events] == [Command, Command, RegistryChange]
    assert events[-1] == change


def test_frames_of_a_newer_version_are_counted_and_passed_over() -> None:
    pair = Pair()
    assert pair.gateway.receive(b"\x01\xc8\x90", 100.0, BASE_MS) == []
    assert pair.cloud.receive(b"\x01\xc8\x90", 100.0, BASE_MS) == []
    assert pair.gateway.frames_unknown == pair.cloud.frames_unknown == 1


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (hello(), "order"),
        (frames.Welcome("demo", "quay-1", CREDIT, BASE_MS), "order"),
        (frames.Accepted(5, (), CREDIT), "request"),
        (frames.Accepted(0, (Span(7, 0, 5),), CREDIT), "span"),
        (frames.Accepted(0, (Span(7, 0, 9),), CREDIT), "span"),
        (frames.Accepted(0, (Span(7, 1, 3),), CREDIT), "span"),
        (frames.Accepted(0, (Span(7, 3, 3),), CREDIT), "span"),
        (frames.Accepted(0, (Span(7, 3, 0),), CREDIT), "span"),
        (frames.Accepted(0, (Span(8, 0, 3),), CREDIT), "span"),
        (frames.Accepted(0, (Span(7, 0, 3), Span(7, 0, 3)), CREDIT), "span"),
        (frames.Accepted(0, (), CREDIT_BYTES_MIN - 1), "credit"),
        (frames.Refused(0, 2, "checksum", ""), "span"),
        (frames.Refused(0, -2, "checksum", ""), "span"),
        (frames.RegistryPart(1, 2, 100, b""), "order"),
        (frames.RegistryPart(0, 1, REGISTRY_BYTES_MAX + 1, b""), "limit"),
        (frames.RegistryPart(0, 1000, 100, b""), "limit"),
        (frames.RegistryPart(0, 1, 100, b"not zstd"), "malformed"),
        (frames.RegistryPart(0, 1, 100, zstandard.compress(bytes(99))), "malformed"),
        (frames.RegistryPart(0, 1, 100, zstandard.compress(bytes(100))), "malformed"),
    ],
)
def test_a_gateway_does_not_believe_a_cloud_that_breaks_the_protocol(frame: frames.Frame, code: str) -> None:
    pair = Pair()
    pair.ship(blocks(2, 3))
    with pytest.raises(ViolationError) as caught:
        pair.gateway.receive(encode_frame(frame), 100.0, BASE_MS)
    assert caught.value.code == code


def _blocks_frame(request: int, *made: bytes) -> frames.Blocks:
    return frames.Blocks(request, Lane.LIVE, Priority.TELEMETRY, made)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (hello(), "order"),
        (frames.Accepted(0, (), CREDIT), "order"),
        (_blocks_frame(1), "limit"),
        (_blocks_frame(1, *[b"x"] * 513), "limit"),
        (_blocks_frame(0, b"x"), "request"),
        (_blocks_frame(1, bytes(CREDIT)), "credit"),
    ],
)
def test_a_cloud_does_not_take_what_breaks_the_protocol(frame: frames.Frame, code: str) -> None:
    pair = Pair()
    pair.ship(blocks(1))
    with pytest.raises(ViolationError) as caught:
        pair.cloud.receive(encode_frame(frame), 100.0, BASE_MS)
    assert caught.value.code == code


@pytest.mark.parametrize("data", [b"", b"\x02\x01\x90", b"\x01\x03\xff"])
def test_bytes_that_are_no_frame_end_the_connection(data: bytes) -> None:
    pair = Pair()
    with pytest.raises(ViolationError):
        pair.cloud.receive(data, 100.0, BASE_MS)
    with pytest.raises(ViolationError):
        pair.gateway.receive(data, 100.0, BASE_MS)


def test_the_first_frame_must_be_hello_and_its_answer_welcome() -> None:
    pair = Pair(greet=False)
    with pytest.raises(ViolationError, match="before Hello"):
        pair.cloud.receive(encode_frame(frames.Probe(1)), 100.0, BASE_MS)
    with pytest.raises(ViolationError, match="before Welcome"):
        pair.gateway.receive(encode_frame(frames.Probe(1)), 100.0, BASE_MS)


def test_more_requests_than_allowed_end_the_connection() -> None:
    pair = Pair()
    for number in range(REQUESTS_MAX):
        pair.cloud.receive(encode_frame(_blocks_frame(number, b"x")), 100.0, BASE_MS)
    with pytest.raises(ViolationError, match="limit"):
        pair.cloud.receive(encode_frame(_blocks_frame(REQUESTS_MAX, b"x")), 100.0, BASE_MS)
