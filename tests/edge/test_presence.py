"""Who comes, goes and falls silent, as it is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from edge.listeners.collector import Collector
from edge.listeners.filling import Owed, Waiter
from edge.places import Places
from edge.presence import SILENT_S_MIN, Name, PresenceRecorder
from protocols.events import Presence, read_presence
from protocols.messages import Origin
from protocols.shipment import MessageBatch, Run, Target

NAME = ("mqtt", "quay", "serial", "pump")


class Site:
    """A collector whose log takes everything, or nothing, and a clock that stands still until it is moved."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "places.json"
        self.now_s = 1000.0
        self.takes = True
        self.said: list[tuple[str, Presence]] = []
        self.came: list[Name] = []
        self.start()

    def start(self) -> None:
        """The gateway, again."""
        self.places = Places(self._file)
        self.presence = PresenceRecorder(cast("Collector", self), self.places, lambda: self.now_s, self.came.append)

    def add(self, origin: Origin, payloads: list[bytes], waiter: Waiter, tokens: Sequence[bytes]) -> None:
        owed = Owed(list(tokens), len(payloads), 0)
        if not self.takes:
            waiter.refused(owed, "log-full")
            return
        self.said.append((origin.alias, read_presence(payloads[0])))
        waiter.recorded(owed)

    def hear(self, *aliases: str) -> None:
        """A batch with a message of each."""
        rows = range(len(aliases))
        targets = [Target("demo", "quay", "serial", alias, 0, "", "", {}, 1) for alias in aliases]
        zeros = [0 for _ in rows]
        batch = MessageBatch(
            [Run(0, 0, 0, len(aliases))], targets, b"", list(rows), zeros, list(rows), zeros, [None for _ in rows],
            zeros, zeros, [b"{}" for _ in rows], [b"" for _ in rows], [], [],
        )  # fmt: skip
        self.presence.heard(batch, ["mqtt" for _ in rows])

    def take_said(self) -> list[tuple[str, bool, str]]:
        said, self.said = self.said, []
        return [(alias, word.online, word.reason) for alias, word in said]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_device_is_there_while_it_has_a_connection(site: Site) -> None:
    site.presence.connected(*NAME)
    site.presence.connected(*NAME)
    site.presence.disconnected(*NAME, "taken over by another connection")
    assert site.take_said() == [("pump", True, "connected")]
    site.presence.disconnected(*NAME, "keep-alive missed")
    assert site.take_said() == [("pump", False, "keep-alive missed")]
    assert site.came == [NAME, NAME]


def test_one_that_only_speaks_is_there_when_it_is_heard(site: Site) -> None:
    for _ in range(3):
        site.hear("a", "b")
    assert site.take_said() == []
    site.hear("a")
    assert site.take_said() == [("a", True, "heard")]


def test_what_is_heard_late_does_not_bring_back_a_device_that_left(site: Site) -> None:
    site.presence.connected(*NAME)
    for _ in range(5):
        site.hear("pump")
    site.presence.disconnected(*NAME, "disconnected")
    site.hear("pump")
    assert site.take_said() == [("pump", True, "connected"), ("pump", False, "disconnected")]


def test_a_device_is_silent_after_some_of_its_own_intervals(site: Site) -> None:
    for _ in range(5):
        site.hear("slow")
        site.now_s += 100
    for step in range(5):
        site.hear("quick")
        site.now_s += 1 if step < 4 else 0
    assert [alias for alias, online, _ in site.take_said() if online] == ["slow", "quick"]
    site.now_s += SILENT_S_MIN
    site.presence.look()
    assert site.take_said() == []
    site.now_s += 1
    site.presence.look()
    assert [said[:2] for said in site.take_said()] == [("quick", False)]
    site.now_s = 1400 + 501
    site.presence.look()
    ((alias, online, reason),) = site.take_said()
    assert (alias, online) == ("slow", False)
    assert reason.startswith("silent for 501 s")
    site.presence.look()
    assert site.take_said() == []
    site.hear("slow")
    assert site.take_said() == [("slow", True, "heard")]


def test_one_that_asks_for_commands_is_there_for_as_long_as_it_listens(site: Site) -> None:
    site.presence.reachable(*NAME, 100.0)
    site.presence.reachable(*NAME, 360.0)
    assert site.take_said() == [("pump", True, "asks for commands")]
    assert site.came == [NAME, NAME], "a command that waits goes out each time"
    site.now_s += 360
    site.presence.look()
    assert site.take_said() == []
    site.now_s += 1
    site.presence.look()
    assert site.take_said() == [("pump", False, "silent for 361 s")]
    site.hear("pump")
    assert site.take_said() == [("pump", True, "heard")]


def test_its_own_intervals_say_more_than_how_long_it_listens(site: Site) -> None:
    site.presence.reachable(*NAME, 86_400.0)
    for _ in range(3):
        site.now_s += 20
        site.hear("pump")
    site.now_s += 101
    site.presence.look()
    assert site.take_said()[1:] == [("pump", False, "silent for 101 s, 5 of its intervals")]


def test_when_a_device_was_there_last(site: Site) -> None:
    assert site.presence.there_s(NAME) == 0.0
    site.presence.connected(*NAME)
    site.now_s += 10
    assert site.presence.there_s(NAME) == 1010.0
    site.presence.disconnected(*NAME, "disconnected")
    site.now_s += 10
    assert site.presence.there_s(NAME) == 1010.0
    site.hear("pump")
    assert site.presence.there_s(NAME) == 1020.0
    site.now_s += 10
    site.presence.reachable(*NAME, 60.0)
    assert site.presence.there_s(NAME) == 1030.0


async def test_where_a_device_was_in_an_earlier_run(site: Site) -> None:
    elsewhere = ("coap", *NAME[1:])
    site.presence.connected(*elsewhere)
    site.now_s += 1
    site.presence.connected(*NAME)
    running = asyncio.create_task(site.places.run())
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait((running,))
    site.now_s = 1.0  # the machine was started again
    site.start()
    assert 0.0 < site.presence.there_s(NAME) < 1.0
    assert site.presence.there_s(elsewhere) == 0.0
    site.presence.reachable(*elsewhere, 60.0)
    assert site.presence.there_s(elsewhere) == 1.0
    assert site.presence.there_s(NAME) == 0.0


@pytest.mark.parametrize("content", [b"", b"no JSON", b'[["quay"]]'])
def test_a_file_of_places_that_cannot_be_read_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "places.json"
    path.write_bytes(content)
    assert Places(path).last(("quay", "serial", "pump")) == ""


def test_one_that_keeps_no_connection_may_listen_whenever_it_is_heard(site: Site) -> None:
    site.presence.connected(*NAME)
    site.hear("pump", "buoy")
    site.hear("pump", "buoy")
    assert site.came == [NAME, *[(*NAME[:3], "buoy")] * 2]


def test_what_the_log_does_not_take_is_said_as_it_is_then(site: Site) -> None:
    site.takes = False
    site.presence.connected(*NAME)
    site.presence.disconnected(*NAME, "disconnected")
    site.presence.look()
    site.takes = True
    site.presence.look()
    site.presence.look()
    assert site.take_said() == [("pump", False, "disconnected")]
