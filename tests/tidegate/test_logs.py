"""Logging: lines that machines and people can read, and that hold no secret."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import suppress

import pytest

from tidegate import logs
from tidegate.repeats import KINDS_MAX, REPEATS_MAX, WINDOW_S, Repeats


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    captured = capsys.readouterr()
    assert captured.out == "", "standard output is for results"
    return [json.loads(line) for line in captured.err.splitlines()]


def test_a_json_line_holds_event_level_time_and_facts(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="info", as_json=True)
    logs.get_logger("edge.sender").warning("link lost", gateway="quay-1", waited_s=1.5)
    (line,) = lines(capsys)
    assert line.pop("timestamp")
    assert line == {
        "event": "link lost",
        "level": "warning",
        "part": "edge.sender",
        "gateway": "quay-1",
        "waited_s": 1.5,
    }


def test_it_is_json_unless_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="info")
    logs.get_logger("edge").info("ready")
    assert lines(capsys)[0]["event"] == "ready"


def test_people_get_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="info", as_json=False)
    logs.get_logger("edge.sender").warning("link lost", gateway="quay-1")
    line = capsys.readouterr().err
    assert "link lost" in line
    assert "gateway=quay-1" in line


def test_what_logs_goes_on_when_its_lines_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log file on a full disk, or a terminal that is gone, must not stop a gateway."""
    with open("/dev/full", "w") as full, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", full)
        logs.configure(level="info", as_json=True)
        logger = logs.get_logger("edge.sender")
        logger.warning("link lost")
        with suppress(OSError):
            full.close()
        logger.warning("link lost")
    logs.configure(level="info", as_json=True)
    logger.warning("link lost")
    assert [line["event"] for line in lines(capsys)] == ["link lost"]


def test_the_level_holds_for_loggers_that_exist_already(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logs.get_logger("edge")
    logs.configure(level="info", as_json=True)
    logger.info("first")
    logs.configure(level="warning", as_json=True)
    logger.info("passed over")
    logger.error("second")
    assert [line["event"] for line in lines(capsys)] == ["first", "second"]


def test_libraries_log_in_the_same_form_and_only_complaints(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="info", as_json=True)
    logging.getLogger("websockets").info("chatter")
    logging.getLogger("websockets").warning("connection %s closed", "a")
    (line,) = lines(capsys)
    assert (line["event"], line["part"], line["level"]) == ("connection a closed", "websockets", "warning")


def test_an_exception_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="info", as_json=True)
    try:
        raise ValueError("at postgresql://tidegate:hunter2@127.0.0.1/tidegate")
    except ValueError:
        logs.get_logger("cloud").exception("failed")
    (line,) = lines(capsys)
    assert "ValueError: at postgresql://tidegate:[redacted]@127.0.0.1/tidegate" in str(line["exception"])


def test_secrets_are_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="info", as_json=True)
    logs.get_logger("edge").info(
        "connecting with Bearer eyJhbGciOi.x-y_z",
        url="nats://user:hunter2@10.0.0.1:4222",
        password="hunter2",
        enrolment_token="hunter2",
        secret_sha256=["hunter2"],
        tls={"private_key": "hunter2", "cert": "public", "nested": [{"api_key": "hunter2"}]},
        error=OSError("cannot reach amqp://u:hunter2@h"),
        alias_key="esn",
        batch_key=7,
    )
    text = capsys.readouterr().err
    assert "hunter2" not in text
    assert "eyJ" not in text
    line = json.loads(text)
    assert line["url"] == "nats://user:[redacted]@10.0.0.1:4222"
    assert line["tls"] == {"private_key": "[redacted]", "cert": "public", "nested": [{"api_key": "[redacted]"}]}
    assert (line["alias_key"], line["batch_key"]) == ("esn", 7)


def test_what_is_nested_without_end_is_still_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="info", as_json=True)
    endless: list[object] = ["deep"]
    endless.append(endless)
    logs.get_logger("edge").info("odd", value=endless)
    assert lines(capsys)[0]["event"] == "odd"


def test_a_flood_of_one_kind_is_passed_over_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    now_s = 100.0
    logs.configure(level="info", as_json=True, clock=lambda: now_s)
    logger = logs.get_logger("edge.listeners")
    for number in range(REPEATS_MAX + 500):
        logger.warning("packet malformed", device=f"bench-{number}")
        logging.getLogger("asyncio").warning("slow callback %d", number)
    logger.warning("another matter")
    flooded = lines(capsys)
    assert len(flooded) == 2 * REPEATS_MAX + 1
    malformed = [line for line in flooded if line["event"] == "packet malformed"]
    assert "repeats" not in malformed[-2]
    assert malformed[-1]["repeats"] == "passed over for 10 s"
    now_s += WINDOW_S
    logger.warning("packet malformed", device="bench-1")
    logger.warning("packet malformed", device="bench-2")
    first, second = lines(capsys)
    assert first["passed_over"] == 500
    assert "passed_over" not in second


def test_texts_that_never_repeat_do_not_fill_memory() -> None:
    repeats = Repeats(lambda: 0.0)
    for number in range(3 * KINDS_MAX):
        assert all(repeats.admit(number) is not None for _ in range(REPEATS_MAX))
        assert repeats.admit(number) is None
    assert len(repeats._seen) <= KINDS_MAX
    assert len(repeats._passed_over) <= 2 * KINDS_MAX


@pytest.mark.parametrize("name", ["password", "db_password", "tokens", "Authorization", "tls.private_key", "SECRET"])
def test_names_of_secrets(name: str) -> None:
    assert logs.is_secret(name)


@pytest.mark.parametrize("name", ["alias_key", "key", "tokenizer", "message_key", "compass"])
def test_names_that_only_look_so(name: str) -> None:
    assert not logs.is_secret(name)
