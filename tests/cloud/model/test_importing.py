"""Lines of files become messages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloud.model.importing import ImportMapping, Line, LineReader, MappingError, guessed, lines_of

NOW = 1_790_000_000_000
ONE = {"network_id": "n", "alias": "a"}


def read(head: bytes, *lines: bytes, **mapping: Any) -> list[Line | str]:
    return LineReader(ImportMapping(**{**ONE, **mapping}), head).read(lines, NOW)


def line(found: Line | str) -> tuple[str, str, str, int, dict[str, Any]]:
    assert isinstance(found, Line), found
    return found.network_id, found.alias_key, found.alias, found.time_ms, json.loads(found.data)


def test_a_file_of_one_device() -> None:
    (found,) = read(b"time,t,on\n", b"2026-01-31T12:00:00Z,21.5,true")
    assert line(found) == ("n", "", "a", 1_769_860_800_000, {"t": 21.5, "on": True})


def test_each_line_may_name_its_device_and_names_stay_text() -> None:
    (found,) = read(
        b"at;net;kind;serial;t;u\n",
        b"1769860800;n;imei;0042;1,5;",
        delimiter=";",
        decimal=",",
        network_id="",
        alias="",
        network_column="net",
        alias_key_column="kind",
        alias_column="serial",
        time_column="at",
    )
    assert line(found) == ("n", "imei", "0042", 1_769_860_800_000, {"t": 1.5})


@pytest.mark.parametrize(
    ("written", "format_", "zone", "at_ms"),
    [
        (b"31.01.2026 13:00", "%d.%m.%Y %H:%M", "Europe/Berlin", 1_769_860_800_000),
        (b"2026-07-01 12:00:00", "", "Europe/Berlin", 1_782_900_000_000),
        (b"2026-01-31T12:00:00+02:00", "", "Europe/Berlin", 1_769_853_600_000),
        (b"1769860800", "", "UTC", 1_769_860_800_000),
        (b"1769860800.5", "s", "UTC", 1_769_860_800_500),
        (b"1769860800000000", "us", "UTC", 1_769_860_800_000),
    ],
)
def test_times_as_loggers_write_them(written: bytes, format_: str, zone: str, at_ms: int) -> None:
    (found,) = read(b"time,t\n", written + b",1", time_format=format_, time_zone=zone)
    assert line(found)[3] == at_ms


def test_attributes_and_types_are_chosen() -> None:
    (found,) = read(
        b"time,T1,code,note\n",
        b"1769860800,1.5,007,x",
        attributes={"temperature": "T1", "code": "code"},
        types={"code": "text"},
    )
    assert line(found)[4] == {"temperature": 1.5, "code": "007"}


def test_json_lines() -> None:
    found = read(b"", b'{"ts":1769860800000,"dev":17,"t":{"in":1}}', b"[1]", b"{", b'[{"ts":1},{"ts":2}]',
                 format="ndjson", alias="", alias_column="dev", time_column="ts")  # fmt: skip
    assert line(found[0]) == ("n", "", "17", 1_769_860_800_000, {"t": {"in": 1}})
    assert all(isinstance(each, str) for each in found[1:])
    assert "several messages" in str(found[3])


def test_what_cannot_be_read_says_why_and_its_neighbours_are_read() -> None:
    found = read(
        b"time,serial,t\n",
        b"yesterday,a,1",
        b"1769860800,,1",
        b"1769860800,a",
        b"900000000,a,1",
        b"1890000000,a,1",
        b"1769860800," + b"x" * 129 + b",1",
        b"\xff\xfe,a,1",
        b"1769860800,a,1",
        alias="",
        alias_column="serial",
    )
    said = ["not a time", "names no alias", "2 values for 3 columns", "before the year 2000", "in the future",
            "longer than 128", "UTF-8"]  # fmt: skip
    for each, words in zip(found, said, strict=False):
        assert isinstance(each, str)
        assert words in each
    assert isinstance(found[-1], Line)


@pytest.mark.parametrize(
    ("mapping", "field"),
    [
        ({"network_id": ""}, "network_id"),
        ({"alias": ""}, "alias"),
        ({"alias_column": "serial"}, "alias"),
        ({"time_column": "at"}, "time_column"),
        ({"time_column": ""}, "time_column"),
        ({"time_format": "seconds"}, "time_format"),
        ({"time_zone": "Mars/Base"}, "time_zone"),
        ({"attributes": {"t": "T1"}}, "attributes"),
        ({"alias": "", "alias_column": "nothing"}, "alias_column"),
        ({"network_id": "", "network_column": "nothing"}, "network_column"),
        ({"types": {"t": "float"}}, "types.t"),
        ({"decimal": ";"}, "decimal"),
        ({"delimiter": '"'}, "delimiter"),
    ],
)
def test_a_mapping_that_cannot_work_names_the_field(mapping: dict[str, Any], field: str) -> None:
    with pytest.raises(MappingError) as caught:
        LineReader(ImportMapping(**{**ONE, **mapping}), b"time,serial,t\n")
    assert caught.value.field == field


def test_lines_keep_their_numbers() -> None:
    data = b"\xef\xbb\xbftime,t\r\n1,2\r\n\r\n3,4"
    assert list(lines_of(data, 1, has_header=True)) == [(2, b"1,2"), (4, b"3,4")]
    assert list(lines_of(b"5,6\n7,8\n", 5, has_header=True)) == [(5, b"5,6"), (6, b"7,8")]


def test_a_files_first_line_says_what_it_is() -> None:
    assert guessed(b"\xef\xbb\xbfa;b;c,d\n") == ("csv", ";", ["a", "b", "c,d"])
    assert guessed(b'{"a":1,"b":2}\n') == ("ndjson", ",", ["a", "b"])
    assert guessed(b"\xff\n")[0] == "csv"
