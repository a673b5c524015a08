"""What the commands show, apart from a gateway that runs (tests/end_to_end has those)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from rich.emoji import Emoji

from edge.cli import app
from edge.cli.config import check
from edge.cli.devices import rate
from edge.cli.gateway import RunningGateway
from edge.cli.log import export
from edge.cli.status import backlog_line, clock_line, duration, link_line, rows, size
from edge.cli.tail import last_rejected, line
from edge.status.accounting import Accounting
from edge.status.rejects import RefusedPacket, Rejected, Rejections, payload_of
from tests.edge.site import Site, command
from tidegate.console import UserError

NOW_MS = 1_700_000_000_000


def accounting(**changes: Any) -> Accounting:
    figures: dict[str, Any] = {
        "gateway": "quay-1",
        "project": "demo",
        "now_ms": NOW_MS,
        "started_ms": NOW_MS - 200_000,
        "totals": {"logged": 12_480, "accepted": 12_460, "pending": 20, "evicted": 0, "damaged": 0},
        "closed": True,
        "epochs": [],
        "log": {
            "used_bytes": 34_000_000, "max_bytes": 2_000_000_000, "segments": 2, "oldest_pending_ms": NOW_MS - 90_000,
            "backlog_peak": 0, "passed_over": 0, "groups": 9, "trouble": "",
            "tails": 0, "gaps_untold": 0,
        },
        "link": {
            "state": "up", "since_ms": NOW_MS - 61_000, "reason": "", "url": "wss://cloud/link/v1", "retry_at_ms": 0,
            "failures": 0, "connections": 1, "round_trip_ms": 21.4, "cloud_ahead_ms": 0, "in_flight_bytes": 0,
            "window_bytes": 1, "credit_bytes": 1, "wire_bytes_sent": 1, "records_sent": 1, "records_resent": 0,
            "blocks_refused": 0, "accepted_per_s": 5000.0, "drain_s": 42.0, "backfill_in_flight_bytes": 0,
            "backfill_credit_bytes": None, "bytes_per_s_max": 0, "keeps_books": True, "gaps_told": 0,
            "backfill_records_sent": 0, "live_left": 0,
        },
        "clock": {
            "state": "synchronized", "wall_ms": NOW_MS, "error_ms": 20, "is_disputed": False,
            "anchor": "kernel", "anchor_ms": NOW_MS - 60_000, "anchor_error_ms": 20, "anchors_waiting": 0,
        },
        "refused": {},
        "turned_away": {},
        "listeners": [],
        "resolver": {
            "records": 0, "messages": 0, "rejected": 0, "unresolved": 0, "skipped": 0, "behind_bytes": 0,
        },
        "registry": {"revision": 0, "networks": 0, "blueprints": 0, "devices": 0},
    }  # fmt: skip
    for path, value in changes.items():
        part, _, name = path.partition("__")
        if name:
            figures[part][name] = value
        else:
            figures[part] = value
    return msgspec.convert(figures, Accounting)


def test_losses_are_told_with_their_reasons() -> None:
    assert "lost: " not in text(accounting())
    totals = {"logged": 9000, "accepted": 2000, "pending": 1000, "evicted": 5500, "damaged": 500}
    seen = accounting(totals=totals, log__tails=1, log__gaps_untold=3)
    assert (
        "lost: 5,500 evicted, as the log was full, 500 damaged on the disk, 1 torn end; 3 gaps wait to be told\n"
        in text(seen)
    )
    told = accounting(log__tails=2)
    assert "lost: 2 torn ends; the cloud knows\n" in text(told)


def text(seen: Accounting) -> str:
    return "\n".join(f"{row['part']}: {row['state']}" for row in rows(seen))


def test_the_accounting_is_one_line() -> None:
    shown = text(accounting())
    assert "accounting: logged 12,480 = accepted 12,460 + pending 20 + evicted 0 + damaged 0\n" in shown
    assert "link: up for 1 min 1 s, 21 ms there and back" in shown
    assert "registry: never received" in shown


def test_an_accounting_that_does_not_close_is_said_loudly() -> None:
    assert "DOES NOT CLOSE" in text(accounting(closed=False))


def test_a_log_that_takes_nothing_is_said_loudly() -> None:
    assert "TAKES NOTHING: log-full: 2 GB of 2 GB" in text(accounting(log__trouble="log-full: 2 GB of 2 GB"))


def test_what_was_refused_is_shown_by_reason() -> None:
    shown = text(accounting(refused={"log-full": 3}, turned_away={"wrong_password": 2, "malformed": 10}))
    assert "refused: records: log-full 3" in shown
    assert "turned away: packets and connections: malformed 10, wrong_password 2" in shown


def test_records_that_cannot_be_decoded_are_shown() -> None:
    assert "rejected: records that cannot be decoded (tidegate-edge tail --rejected): 7" in text(
        accounting(resolver__rejected=7)
    )
    assert "rejected" not in text(accounting())


def test_a_listener_on_a_network_that_the_project_does_not_have_says_so() -> None:
    listener: dict[str, Any] = {
        "name": "mqtt", "network": "dmo", "kind": "mqtt", "place": "0.0.0.0:1883", "port": 1883, "connections": 1,
        "connections_total": 1,
        "recorded": 0, "refused": {}, "malformed": 0, "auth_failures": 0, "bytes_in": 0, "network_known": False,
        "trouble": "",
    }  # fmt: skip
    shown = text(accounting(listeners=[listener]))
    assert "mqtt 0.0.0.0:1883, 1 connection, 0 records; network dmo is not in project demo" in shown
    assert "is not in" not in text(accounting(listeners=[listener | {"network_known": True}]))


def test_what_a_listener_waits_for_is_shown() -> None:
    listener: dict[str, Any] = {
        "name": "meter", "network": "demo", "kind": "serial", "place": "/dev/ttyUSB0", "port": 0, "connections": 0,
        "connections_total": 0, "recorded": 0, "refused": {}, "malformed": 0, "auth_failures": 0, "bytes_in": 0,
        "network_known": True, "trouble": "/dev/ttyUSB0 is not there",
    }  # fmt: skip
    shown = text(accounting(listeners=[listener]))
    assert "serial /dev/ttyUSB0, 0 connections, 0 records; /dev/ttyUSB0 is not there" in shown


def test_no_help_text_has_a_word_that_rich_draws_as_a_picture() -> None:
    def helps(command: Any) -> Iterator[str]:
        yield command.help or ""
        yield from (parameter.help or "" for parameter in command.params if hasattr(parameter, "help"))
        for below in getattr(command, "commands", {}).values():
            yield from helps(below)

    texts = list(helps(typer.main.get_command(app)))
    assert len(texts) > 10
    assert [text for text in texts if Emoji.replace(text) != text] == []


def test_a_backlog_that_drains_has_a_bar_and_an_estimate() -> None:
    seen = accounting(
        log__backlog_peak=1000, totals={"logged": 2000, "accepted": 1750, "pending": 250, "evicted": 0, "damaged": 0}
    )
    assert backlog_line(seen) == (
        "██████████████████░░░░░░ 75 %  250 wait, the oldest for 1 min 30 s; 5,000 a second, about 42 s left"
    )


def test_a_backlog_that_cannot_drain_says_why() -> None:
    held = accounting(log__backlog_peak=1000, link__state="down", link__reason="no answer")
    assert backlog_line(held) == "20 wait, the oldest for 1 min 30 s; held until the link is up"
    assert backlog_line(accounting(log__backlog_peak=1000, link__drain_s=None)).endswith("nothing moves")
    assert backlog_line(accounting()) == "none; 20 on their way"


def test_a_link_that_is_held_back_says_by_what() -> None:
    assert link_line(accounting()) == "up for 1 min 1 s, 21 ms there and back"
    seen = accounting(link__bytes_per_s_max=8_000, link__backfill_credit_bytes=0)
    assert link_line(seen).endswith(", at most 8.0 kB a second, the cloud has backfill wait")


def test_a_link_that_is_down_says_why_and_when_it_tries_again() -> None:
    seen = accounting(link__state="down", link__reason="no answer", link__retry_at_ms=NOW_MS + 4000)
    assert link_line(seen) == "down for 1 min 1 s: no answer; next attempt in 4 s"


@pytest.mark.parametrize(
    ("clock", "shown"),
    [
        ({}, "synchronized within 20 ms"),
        (
            {"state": "unset", "wall_ms": 60_000, "error_ms": 41, "anchor": "cloud"},
            "unset, 19675 d 22 h behind; true time within 41 ms, anchored by the cloud",
        ),
        (
            {"state": "restored", "wall_ms": NOW_MS + 999, "error_ms": 1_200, "anchor": "kernel"},
            "restored, right; true time within 1,200 ms, anchored by the kernel",
        ),
        (
            {
                "state": "restored",
                "wall_ms": NOW_MS + 86_400_000,
                "error_ms": 9,
                "anchor": "cloud",
                "is_disputed": True,
            },
            "restored, 1 d ahead; true time within 9 ms, anchored by the cloud;"
            " the kernel says that it is synchronized, THE CLOUD CONTRADICTS",
        ),
        (
            {"state": "unset", "error_ms": None, "anchor": ""},
            "unset; true time is not known, until the link is up or a time service sets the clock",
        ),
    ],
)
def test_how_the_clock_stands(clock: dict[str, Any], shown: str) -> None:
    assert clock_line(accounting(**{f"clock__{name}": value for name, value in clock.items()})) == shown


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [(0, "0 s"), (59_999, "59 s"), (60_000, "1 min"), (200_000, "3 min 20 s"), (18_720_000, "5 h 12 min"),
     (86_400_000, "1 d"), (90_000_000_000, "1041 d 16 h"), (-5, "0 s")],
)  # fmt: skip
def test_durations(milliseconds: int, shown: str) -> None:
    assert duration(milliseconds) == shown


def test_sizes() -> None:
    assert [size(count) for count in (0, 999, 1500, 34_000_000, 2_000_000_000)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "34.0 MB",
        "2.0 GB",
    ]


MESSAGE = {"kind": "message", "network": "quay", "alias_key": "serial", "alias": "pump", "device_id": 1,
           "received_time": NOW_MS, "data": {"n": 1}, "size": 7}  # fmt: skip
PAYLOAD = {"size": 3, "hex": "78797a", "text": "xyz"}


def test_what_was_turned_away_before_is_filtered_as_what_comes() -> None:
    payload = payload_of(b"x")
    known = Rejections(
        [
            Rejected(20, "c", "d", "quay", "serial", alias, "up", name, payload)
            for alias, name in (("a", "mqtt"), ("b", "udp"))
        ],
        [RefusedPacket(10, "c", "d", name, "10.0.0.1:5", "a", payload) for name in ("mqtt", "udp")],
        {},
        {},
    )

    def shown(device: str, listener: str) -> list[tuple[str, str]]:
        return [(type(event).__name__, event.listener) for event in last_rejected(known, device, listener)]

    assert shown("", "udp") == [("RefusedEvent", "udp"), ("RejectedEvent", "udp")]
    assert shown("a", "mqtt") == [("RefusedEvent", "mqtt"), ("RejectedEvent", "mqtt")]
    assert shown("a", "udp") == [("RefusedEvent", "udp")]


@pytest.mark.parametrize(
    ("per_min", "shown"),
    [(None, ""), (1200.0, "20.0/s"), (59.4, "1.0/s"), (6.0, "6.0/min"), (0.5, "30.0/h"), (0.0, "0.0/h")],
)
def test_a_rate_is_shown_by_a_unit_that_fits(per_min: float | None, shown: str) -> None:
    assert rate(per_min) == shown


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        (MESSAGE, 'quay:serial:pump  {"n":1}'),
        (MESSAGE | {"device_id": 0}, 'quay:serial:pump  {"n":1}  unresolved: no device has this alias'),
        (MESSAGE | {"data": None, "size": 5000}, "quay:serial:pump  (5,000 bytes)"),
        (
            MESSAGE | {"kind": "rejected", "code": "undecodable", "detail": "not JSON", "payload": PAYLOAD},
            "quay:serial:pump  rejected: undecodable: not JSON  xyz",
        ),
        (
            MESSAGE | {"kind": "rejected", "code": "c", "detail": "d",
                       "payload": {"size": 2000, "hex": "ff00", "text": None}},
            "quay:serial:pump  rejected: c: d  ff00… (2,000 bytes)",
        ),
        (
            {"kind": "refused", "time_ms": NOW_MS, "listener": "mqtt", "peer": "10.0.0.1:5", "user_name": "",
             "code": "malformed", "detail": "bad", "payload": {"size": 0, "hex": "", "text": ""}},
            "mqtt 10.0.0.1:5 (no login)  refused: malformed: bad",
        ),
    ],
)  # fmt: skip
def test_a_line_of_the_tail(event: dict[str, Any], shown: str) -> None:
    assert line(event).split("  ", 1)[1] == shown


def test_where_no_gateway_runs_by_default_the_remedy_names_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_EDGE_DATA_DIR", str(tmp_path))
    with pytest.raises(UserError) as error:
        RunningGateway(None, None)
    assert error.value.remedy == (
        "tidegate-edge run; if its configuration lies elsewhere: --config FILE (the demo: --config .run/gateway.toml)"
    )
    with pytest.raises(UserError, match="there is no log in") as error:
        export(tmp_path / "x.sqlite")
    assert "--config .run/gateway.toml" in error.value.remedy


def test_an_export_into_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"there is no folder {tmp_path / 'nope'}"):
        export(tmp_path / "nope" / "x.sqlite", data_dir=tmp_path)


def test_config_check_names_the_listener_whose_certificate_is_missing(tmp_path: Path) -> None:
    config = Site(tmp_path).write_config()
    tls = f'port = 0\ntls_cert = "{os.devnull}"\ntls_key = "{tmp_path}/no.pem"\n[status]'
    config.write_text(config.read_text().replace("port = 0\n[status]", tls))
    with pytest.raises(UserError) as error:
        check(config)
    assert error.value.message == (f"mqtt[0].tls_key of listener 'mqtt': {tmp_path}/no.pem: No such file or directory")


@pytest.mark.servers
class TestCommands:
    def test_version(self) -> None:
        assert command("--version").stdout.startswith("tidegate-edge ")

    def test_what_needs_a_gateway_names_the_command_that_starts_it(self, tmp_path: Path) -> None:
        config = Site(tmp_path).write_config()
        for words in (("status",), ("status", "--json"), ("tail",)):
            done = command(*words, "--config", config)
            assert done.returncode == 1
            assert done.stderr == (
                f"error: no gateway runs on {tmp_path / 'data'}\n  try: tidegate-edge run --config {config}\n"
            )

    def test_run_without_enrolment(self, tmp_path: Path) -> None:
        done = command("run", "--data", tmp_path / "data")
        assert done.returncode == 1
        assert f"error: the gateway of {tmp_path / 'data'} is not enrolled" in done.stderr
        assert "try: tidegate-edge enroll" in done.stderr

    def test_config_check_shows_what_is_in_force(self, tmp_path: Path) -> None:
        config = Site(tmp_path).write_config()
        shown = command("config", "check", "--config", config).stdout
        assert str(tmp_path / "data") in shown
        assert "log.max_bytes" in shown
        as_json = json.loads(command("config", "check", "--config", config, "--json").stdout)
        assert as_json["mqtt"][0]["network"] == "quay"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('data_dir = "x"\n[log]\nmax_bytes = 12\n', "edge.toml, line 3: log.max_bytes: 12 is below the minimum"),
            ('data_dir = "x"\n[log\n', "edge.toml, line 2, column 5: not valid TOML"),
            ("[status]\nprot = 1\n", "edge.toml, line 2: status.prot: no such setting"),
        ],
    )
    def test_config_check_says_where_it_is_wrong(self, tmp_path: Path, text: str, message: str) -> None:
        file = tmp_path / "edge.toml"
        file.write_text(text)
        done = command("config", "check", "--config", file)
        assert done.returncode == 1
        assert message in done.stderr
        assert command("run", "--config", file).stderr == done.stderr

    def test_an_export_of_no_log(self, tmp_path: Path) -> None:
        done = command("log", "export", tmp_path / "x.sqlite", "--data", tmp_path / "data")
        assert done.returncode == 1
        assert f"error: there is no log in {tmp_path / 'data' / 'log'}" in done.stderr
        assert not list(tmp_path.glob("x.sqlite*"))
