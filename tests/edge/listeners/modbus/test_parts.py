"""What of the Modbus listener is pure: configuration, requests, schedule, what is written."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.listeners.modbus.config import ModbusConfig, RegisterConfig
from edge.listeners.modbus.reads import Read, plan
from edge.listeners.modbus.schedule import Schedule
from edge.listeners.modbus.writes import ValueRefusedError, write_of
from protocols.codecs import CodecSpec, LayoutField
from protocols.codecs.registers import COILS, HOLDING, INPUT, Block, Register, encode_map, encode_reading
from tests.protocols.codecs.decoding import messages


def holding(address: int, kind: str = "u16", **field: Any) -> Register:
    return Register(HOLDING, address, LayoutField(f"r{address}", kind, **field))


class TestReads:
    def test_neighbours_are_read_together(self) -> None:
        registers = [
            holding(12),
            holding(10, "f32"),
            holding(13),
            holding(20),
            Register(INPUT, 14, LayoutField("i", "u16")),
        ]
        assert plan(registers, read_max=125, gap_max=0) == [
            Read(HOLDING, 10, 4),
            Read(HOLDING, 20, 1),
            Read(INPUT, 14, 1),
        ]

    def test_a_gap_is_read_along_where_that_is_wanted(self) -> None:
        assert plan([holding(0), holding(5)], read_max=125, gap_max=4) == [Read(HOLDING, 0, 6)]
        assert plan([holding(0), holding(6)], read_max=125, gap_max=4) == [Read(HOLDING, 0, 1), Read(HOLDING, 6, 1)]

    def test_coils_are_counted_apart(self) -> None:
        coils = [Register(COILS, address, LayoutField(f"c{address}", "bool")) for address in range(33)]
        assert plan(coils, read_max=2, gap_max=0) == [Read(COILS, 0, 32), Read(COILS, 32, 1)]

    @given(
        st.lists(st.tuples(st.integers(0, 300), st.sampled_from(["u16", "u32", "u64"])), min_size=1, max_size=60),
        st.integers(4, 125),
        st.integers(0, 20),
    )
    def test_every_register_is_whole_in_one_request_within_the_limit(
        self, places: list[tuple[int, str]], read_max: int, gap_max: int
    ) -> None:
        registers = [holding(address, kind) for address, kind in places]
        reads = plan(registers, read_max=read_max, gap_max=gap_max)
        assert all(read.count <= read_max for read in reads)
        for register in registers:
            assert any(
                read.address <= register.address and register.address + register.count <= read.address + read.count
                for read in reads
            )


class TestSchedule:
    def test_turns_do_not_drift_with_what_polls_take(self) -> None:
        schedule = Schedule([10.0], 100.0)
        dues = []
        for _ in range(3):
            place, due_s = schedule.next()
            dues.append(due_s)
            assert schedule.done(place, due_s + 3.7) == 0
        assert dues == [100.0, 110.0, 120.0]

    def test_turns_that_passed_are_left_out_and_counted(self) -> None:
        schedule = Schedule([10.0], 100.0)
        assert schedule.done(0, 134.0) == 3
        assert schedule.next() == (0, 140.0)

    def test_units_take_turns_by_their_intervals(self) -> None:
        schedule = Schedule([10.0, 4.0], 0.0)
        seen = []
        for _ in range(6):
            place, due_s = schedule.next()
            seen.append((place, due_s))
            schedule.done(place, due_s)
        assert seen == [(0, 0.0), (1, 0.0), (1, 4.0), (1, 8.0), (0, 10.0), (1, 12.0)]

    def test_a_unit_that_is_to_wait_keeps_its_turns(self) -> None:
        schedule = Schedule([10.0], 0.0)
        schedule.done(0, 1.0, not_before_s=35.0)
        assert schedule.next() == (0, 40.0)

    def test_after_a_pause_only_the_last_turn_is_due(self) -> None:
        schedule = Schedule([10.0, 7.0], 0.0)
        schedule.catch_up(35.0)
        assert schedule.next() == (0, 30.0)
        assert schedule.done(0, 35.0) == 0
        assert schedule.next() == (1, 35.0)

    def test_who_is_asked_for_out_of_turn_keeps_its_turns(self) -> None:
        schedule = Schedule([10.0, 10.0], 0.0)
        for place in (0, 1):
            schedule.done(place, 1.0)
        schedule.at_once(1)
        assert schedule.next()[0] == 1
        schedule.begin(1)
        schedule.at_once(1)  # during that poll, which may have read too early
        schedule.done(1, 2.0)
        assert schedule.next()[0] == 1
        schedule.begin(1)
        assert schedule.done(1, 3.0) == 0
        assert schedule.next() == (0, 10.0)
        assert schedule.done(0, 10.0) == 0
        assert schedule.next() == (1, 10.0)


class TestWrites:
    @pytest.mark.parametrize(
        ("register", "value"),
        [
            (holding(0), 65_535),
            (holding(0, "i16", scale=0.1), -5.5),
            (holding(0, "u32"), 70_000),
            (holding(0, "f32"), 1.5),
            (holding(0, "i16", scale=0.5, offset=10), 12.5),
            (holding(0, "u16", values={"2": "open"}), "open"),
            (holding(0, "string", length=4), "abcd"),
            (Register(COILS, 0, LayoutField("r0", "bool")), True),
        ],
    )
    def test_what_is_written_reads_as_the_same(self, register: Register, value: object) -> None:
        for low_first in (False, True):
            at = msgspec.structs.replace(register, low_first=low_first)
            write = write_of(at, value)
            width = 1 if at.function == COILS else 2
            data = b"".join(word.to_bytes(width, "big") for word in write.words)
            payload = encode_reading([Block(at.function, 0, data)], encode_map([at]))
            assert messages(payload, CodecSpec("registers")) == [{"r0": value}]

    @pytest.mark.parametrize(
        ("register", "value", "said"),
        [
            (holding(0), 65_536, "u16, which cannot hold 65536"),
            (holding(0), -1, "u16, which cannot hold -1"),
            (holding(0), True, "is a number, and True is none"),
            (holding(0, "f32"), 1e300, "f32, which cannot hold"),
            (holding(0, values={"2": "open"}), "shut", "one of open, not 'shut'"),
            (holding(0, "string", length=4), "abcde", "up to 4 bytes"),
            (holding(0, "bcd", length=2), 12, "cannot be written"),
            (Register(COILS, 0, LayoutField("r0", "bool")), 2, "neither true nor false"),
        ],
    )
    def test_what_it_cannot_hold_is_refused(self, register: Register, value: object, said: str) -> None:
        with pytest.raises(ValueRefusedError, match=said):
            write_of(register, value)


def register(**settings: Any) -> dict[str, Any]:
    return {"name": "a", "address": 0, **settings}


def line(*registers: dict[str, Any], **settings: Any) -> dict[str, Any]:
    unit = {"unit": 1, "device": "serial:7", "registers": list(registers or (register(),))}
    return {"name": "m", "network": "n", "host": "10.0.0.5", "units": [unit], **settings}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (line(host=""), "host and serial: one of them"),
        (line(serial="/dev/ttyS0"), "host and serial: one of them"),
        (line(register(kind="input", write=True)), "write: 'a' is read-only"),
        (line(register(kind="coil", type="u16")), "type: 'u16' of 'a' does not fit kind coil"),
        (line(register(type="bool")), "type: 'bool' of 'a' does not fit kind holding"),
        (line(register(type="string", length=3)), "even length"),
        (line(register(scale=0)), "scale: of 'a' is 0"),
        (line(register(), register()), "registers: two are named 'a'"),
        (line(units=[]), "Expected `array` of length >= 1"),
        (line(register(address=-1)), "Expected `int` >= 0"),
        (line(interval_s=0), "Expected `float` >= 0.05"),
    ],
)
def test_mistakes_in_the_configuration(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=said):
        msgspec.convert(settings, ModbusConfig)


def test_two_units_of_one_address_and_a_device_without_a_key() -> None:
    unit = line()["units"][0]
    with pytest.raises(msgspec.ValidationError, match="two have the address 1"):
        msgspec.convert(line(units=[unit, unit]), ModbusConfig)
    with pytest.raises(msgspec.ValidationError, match="KEY:ALIAS"):
        msgspec.convert(line(units=[{**unit, "device": "7"}]), ModbusConfig)


def test_types_that_need_not_be_said() -> None:
    kinds = [RegisterConfig("a", 0, kind).register.field.type for kind in ("coil", "discrete", "holding", "input")]
    assert kinds == ["bool", "bool", "u16", "u16"]
