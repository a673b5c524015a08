from __future__ import annotations

from edge.listeners.refusals import Refusals, Refused
from edge.status.rejects import KEPT_MAX, PAYLOAD_BYTES_MAX, Rejects, payload_of
from tests.edge.status.messages import resolved


def test_a_rejected_record_is_kept_with_reason_and_bytes() -> None:
    rejects = Rejects()
    rejects.add(*resolved(("pump", b'{"n":1}'), ("pump", b'{"n":'), ("stranger", b"\xff\x00")))
    newest, oldest = rejects.all([]).rejected
    assert (oldest.alias, oldest.code, oldest.topic, oldest.payload.text) == ("pump", "undecodable", "up", '{"n":')
    assert (newest.alias, newest.payload.hex, newest.payload.text) == ("stranger", "ff00", None)
    assert rejects.counts == {"undecodable": 2}


def test_refused_packets_of_all_listeners_are_shown_newest_first() -> None:
    listeners = [Refusals("mqtt"), Refusals("other")]
    listeners[0].add(Refused(10, "malformed", "bad", "10.0.0.1:5", "", b"\x00"), now_s=0)
    listeners[1].add(Refused(20, "wrong_password", "no", "10.0.0.2:5", "pump", b""), now_s=0)
    listeners[1].add(Refused(5, "malformed", "bad", "10.0.0.2:6", "", b""), now_s=0)
    seen = Rejects().all(listeners)
    assert [(one.time_ms, one.listener, one.code) for one in seen.refused] == [
        (20, "other", "wrong_password"),
        (10, "mqtt", "malformed"),
        (5, "other", "malformed"),
    ]
    assert seen.refused_counts == {"malformed": 2, "wrong_password": 1}


def test_a_flood_costs_no_more_than_what_is_kept_and_is_counted_whole() -> None:
    rejects = Rejects()
    for _ in range(10):
        rejects.add(*resolved(*(("pump", b"x") for _ in range(200))))
    assert len(rejects.all([]).rejected) <= KEPT_MAX
    assert rejects.counts == {"undecodable": 2000}


def test_a_long_payload_is_cut_between_characters() -> None:
    payload = payload_of("å".encode() * PAYLOAD_BYTES_MAX + b"!")
    assert payload.size == 2 * PAYLOAD_BYTES_MAX + 1
    assert len(payload.hex) == 2 * PAYLOAD_BYTES_MAX
    odd = payload_of(b"!" + "å".encode() * PAYLOAD_BYTES_MAX)
    assert odd.text == "!" + "å" * (PAYLOAD_BYTES_MAX // 2 - 1)


def test_a_payload_that_ends_within_a_character_is_no_text() -> None:
    assert payload_of("å".encode()[:1]).text is None
