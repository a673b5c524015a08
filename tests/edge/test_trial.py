"""`tidegate-edge test`: what is shown of what comes, and what becomes of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge.cli.trial import Seen, seconds
from edge.config import EdgeConfig, MqttConfig
from edge.identity import load_enrolment
from edge.trial import CODE, trial
from protocols.messages import Origin
from tests.edge.site import Site
from tests.edge.test_cli import MESSAGE, PAYLOAD
from tidegate.console import UserError

REJECTED = MESSAGE | {"kind": "rejected", "code": "undecodable", "detail": "not JSON", "payload": PAYLOAD}
REFUSED = {"kind": "refused", "time_ms": 0, "peer": "10.0.0.1:5", "user_name": "", "code": "c", "detail": "d",
           "payload": PAYLOAD}  # fmt: skip


def of(listener: str, event: dict[str, Any]) -> dict[str, Any]:
    return event | {"listener": listener}


def test_it_waits_for_one_of_each_and_shows_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    seen = Seen(["mqtt", "coap"], once=True, as_json=False)
    assert not seen.take(of("mqtt", MESSAGE))
    assert not seen.take(of("mqtt", MESSAGE))
    assert not seen.take(of("other", MESSAGE))
    assert seen.take(of("coap", MESSAGE))
    assert seen.is_good
    shown = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in shown] == ["mqtt", "coap"]
    assert shown[0].endswith('quay:serial:pump  {"n":1}')


def test_what_does_not_decode_was_heard_but_is_not_good() -> None:
    seen = Seen(["mqtt"], once=True, as_json=False)
    assert seen.take(of("mqtt", REJECTED))
    assert not seen.is_good
    assert list(seen.summary("60s")) == [
        "mqtt: heard, but what came does not decode: see the codec of its network, or the device"
    ]


def test_after_a_refusal_the_device_may_try_again(capsys: pytest.CaptureFixture[str]) -> None:
    seen = Seen(["mqtt", "coap"], once=True, as_json=False)
    assert not seen.take(of("mqtt", REFUSED))
    assert list(seen.summary("60s")) == [
        "mqtt: devices came, and were refused: see above",
        "coap: heard nobody within 60s",
    ]
    seen.take(of("mqtt", MESSAGE))
    assert next(seen.summary("60s")) == "mqtt: heard, and decoded"
    assert "refused: c: d" in capsys.readouterr().out


def test_without_once_everything_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    seen = Seen(["mqtt"], once=False, as_json=True)
    for event in (MESSAGE, REJECTED, MESSAGE):
        assert not seen.take(of("mqtt", event))
    assert seen.is_good
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize(("text", "shown"), [("60s", 60.0), ("5min", 300.0), ("2.5", 2.5), (" 1 s ", 1.0)])
def test_lengths_of_time(text: str, shown: float) -> None:
    assert seconds(text) == shown


def test_what_is_no_length_of_time() -> None:
    with pytest.raises(UserError, match="'soon' is no length of time"):
        seconds("soon")


async def test_what_comes_is_decoded_and_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    site = Site(tmp_path)
    await site.furnish()
    before = {file: file.read_bytes() for file in site.data_dir.rglob("*")}
    answers: list[str] = []

    class Device:
        def recorded(self, _owed: object) -> None:
            answers.append("recorded")

        def refused(self, _owed: object, code: str) -> None:
            answers.append(code)

    async with trial(site.data_dir, load_enrolment(site.data_dir), []) as tried:
        assert tried.registry.revision == 7
        origin = Origin("quay", "serial", "pump", "up", "", "mqtt")
        tried.collector.add(origin, [b'{"n":1}', b"rubbish"], Device(), [b"1", b"2"])
        await tried.collector.drained()
        async with asyncio.timeout(5):
            events, _ = await tried.heard.next()
    found = [msgspec.json.decode(event) for event in events]
    assert [(event["kind"], event["listener"], event["alias"]) for event in found] == [
        ("message", "mqtt", "pump"),
        ("rejected", "mqtt", "pump"),
    ]
    assert found[0]["device_id"] == 1
    assert answers == [CODE]
    assert {file: file.read_bytes() for file in site.data_dir.rglob("*")} == before


async def test_one_that_cannot_be_started_keeps_no_other_from_its_work(tmp_path: Path) -> None:
    wrong = MqttConfig("tls", "quay", "127.0.0.1", 0, tls_cert=f"{tmp_path}/no", tls_key=f"{tmp_path}/no")
    config = EdgeConfig(data_dir=tmp_path, mqtt=(wrong, MqttConfig("none", "quay", "192.0.2.7", 1)))
    async with trial(tmp_path, None, config.listeners) as tried:
        tls, none = await tried.start()
    assert "cannot use tls_cert" in tls.trouble
    assert "cannot listen on 192.0.2.7:1" in none.trouble
    assert list(tmp_path.iterdir()) == []
