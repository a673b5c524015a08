"""What the CoAP listener is made of, by itself: paths, what it remembers and for how long, configuration."""

from __future__ import annotations

import pytest

from edge.listeners.coap.config import CoapConfig
from edge.listeners.coap.exchanges import Exchanges
from edge.listeners.coap.limits import EXCHANGE_S, TURNED_AWAY_PER_S, UPLOAD_S
from edge.listeners.coap.routes import Purpose, Route, Routes
from edge.listeners.coap.sources import Sources
from edge.listeners.coap.uploads import Uploads
from protocols.coap.message import Block
from protocols.coap.numbers import Code
from protocols.templates import NOBODY, Name
from tests.edge.listeners.coap_world import World
from tidegate.console import UserError

HERE = ("10.0.0.1", 5683)
THERE = ("10.0.0.2", 5683)
SEVEN = Name("serial", "7")


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("sensors/7/up", Route(Purpose.UPLINK, SEVEN)),
        ("sensors/7/down", Route(Purpose.COMMANDS, SEVEN)),
        ("sensors/7/response/c1", Route(Purpose.RESPONSE, SEVEN)),
        ("7", Route(Purpose.UPLINK, SEVEN)),
        ("7/down", Route(Purpose.COMMANDS, SEVEN)),
        ("7/response/c1", Route(Purpose.RESPONSE, SEVEN)),
        ("any/thing/at/all", Route(Purpose.UPLINK, NOBODY)),
        ("any/thing/down", Route(Purpose.COMMANDS, NOBODY)),
        (".well-known/core", Route(Purpose.CORE)),
        ("sensors/7/response/", None),
        ("sensors/7", None),
        ("", None),
        ("any/\0", None),
        ("any/" + 600 * "x", None),
    ],
)
def test_what_a_path_is_for(path: str, route: Route | None) -> None:
    assert Routes(("sensors/{serial}/up", "{serial}", "any/+/#")).find(path) == route


def test_commands_of_a_path_that_names_nobody_stand_at_the_root() -> None:
    routes = Routes(("up",))
    assert [routes.find(path) for path in ("up", "down", "response/c1", "x/down")] == [
        Route(Purpose.UPLINK),
        Route(Purpose.COMMANDS),
        Route(Purpose.RESPONSE),
        None,
    ]


def test_a_message_is_the_same_by_endpoint_id_and_bytes_for_a_while() -> None:
    exchanges = Exchanges()
    first = exchanges.begin(HERE, 1, b"a", 0.0)
    assert exchanges.find(HERE, 1, b"a", EXCHANGE_S) is first
    for address, message_id, data, now_s in (
        (THERE, 1, b"a", 0.0),
        (HERE, 2, b"a", 0.0),
        (HERE, 1, b"b", 0.0),
        (HERE, 1, b"a", EXCHANGE_S + 1),
    ):
        assert exchanges.find(address, message_id, data, now_s) is None
    exchanges.begin(THERE, 1, b"a", 10.0)
    exchanges.forget(EXCHANGE_S + 1)
    assert len(exchanges) == 1
    assert exchanges.find(THERE, 1, b"a", EXCHANGE_S + 1) is not None


def test_a_message_that_is_dropped_is_new_again() -> None:
    exchanges = Exchanges()
    for message_id in (1, 2):
        exchanges.begin(HERE, message_id, b"a", 0.0)
    exchanges.drop(HERE, 1)
    assert exchanges.find(HERE, 1, b"a", 0.0) is None
    assert exchanges.find(HERE, 2, b"a", 0.0) is not None
    for address, message_id in ((HERE, 2), (HERE, 2), (THERE, 1)):
        exchanges.drop(address, message_id)
    assert len(exchanges) == 0


def test_when_too_much_is_to_be_remembered_who_is_silent_longest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.listeners.coap.exchanges.EXCHANGES_MAX", 3)
    exchanges = Exchanges()
    for address, message_id in ((HERE, 1), (THERE, 1), (HERE, 2), (THERE, 2), (HERE, 3)):
        exchanges.begin(address, message_id, b"", 0.0)
        assert len(exchanges) <= 3
    found = [
        exchanges.find(*message, b"", 0.0) is not None for message in ((HERE, 1), (HERE, 2), (THERE, 2), (HERE, 3))
    ]
    assert found == [False, True, True, True]


def test_an_address_sends_as_much_as_it_may_and_is_told_now_and_then() -> None:
    sources = Sources(10)
    source = sources.heard("a", 0.0)
    assert [sources.takes(source) for _ in range(11)] == 10 * [True] + [False]
    sources.heard("a", 0.5)
    assert [sources.takes(source) for _ in range(6)] == 5 * [True] + [False]
    sources.heard("a", 60.0)
    assert [sources.tells(source) for _ in range(TURNED_AWAY_PER_S + 1)][-2:] == [True, False]
    assert all(Sources(0).takes(source) for _ in range(100))


def test_addresses_are_forgotten_but_for_those_with_something_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = Sources(10)
    busy = sources.heard("busy", 0.0)
    busy.waiting = 1
    sources.heard("idle", 1.0)
    sources.forget(2.0)
    assert (len(sources), sources.total) == (1, 2)
    monkeypatch.setattr("edge.listeners.coap.sources.SOURCES_MAX", 2)
    for host in ("b", "c", "d"):
        sources.heard(host, 3.0)
    assert len(sources) == 2
    assert sources.heard("busy", 3.0) is busy


def test_an_upload_that_is_given_up_makes_room() -> None:
    uploads, source = Uploads(), Sources(0).heard("a", 0.0)
    first = uploads.add("key", source, Block(0, True, 0), bytes(16), None, 0.0)
    assert not isinstance(first, bytes)
    assert (first.code, len(uploads), source.uploads) == (Code.CONTINUE, 1, 1)
    uploads.forget(UPLOAD_S + 1)
    assert (len(uploads), source.uploads) == (0, 0)
    late = uploads.add("key", source, Block(1, False, 0), b"x", None, UPLOAD_S + 1)
    assert not isinstance(late, bytes)
    assert late.code == Code.INCOMPLETE


def test_a_configuration_without_paths_or_with_a_wrong_one() -> None:
    with pytest.raises(ValueError, match="at least one is needed"):
        CoapConfig(name="c", network="n", templates=())
    with pytest.raises(ValueError, match="templates: 'a/#/b'"):
        CoapConfig(name="c", network="n", templates=("/a/#/b",))
    assert CoapConfig(name="c", network="n", templates=("/a/{serial}",)).paths == ("a/{serial}",)


async def test_a_port_in_use_is_said_with_what_to_do() -> None:
    async with World().listening() as first:
        assert first.place == f"127.0.0.1:{first.port}"
        with pytest.raises(UserError) as raised:
            async with World().listening(port=first.port):
                pass
    assert f"cannot listen on 127.0.0.1:{first.port}: the port is in use" in str(raised.value)
    assert f"ss -lunp 'sport = :{first.port}'" in raised.value.remedy
