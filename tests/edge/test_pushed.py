"""Listeners that the cloud pushes: in force whole or not at all, kept over a start, never in the way of one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge import pushed as module
from edge.cli.reload import lines
from edge.cli.status import configuration_line
from edge.config import EdgeConfig, MqttConfig
from edge.listeners.catalog import KINDS
from edge.listeners.config import ListenerConfig
from edge.listeners.roster import Roster
from edge.pushed import Pushed, merged
from edge.reload import Reload
from edge.status.accounting import PushedFigures
from sync.configuration import SECTIONS
from sync.link.frames import Configuration, ConfigurationResult
from tests.edge.fake_listeners import FakeListener
from tidegate.console import UserError


def section(name: str, network: str = "quay") -> str:
    return f'[[mqtt]]\nname = "{name}"\nnetwork = "{network}"\nhost = "127.0.0.1"\nport = 0\n'


class Gateway:
    """One run of a gateway whose file has the listener `own`."""

    def __init__(self, path: Path, broken: set[str]) -> None:
        self.done: list[str] = []
        self.broken = broken
        self.own = EdgeConfig(mqtt=(MqttConfig("own", "quay", "127.0.0.1", 0),))
        self.roster = Roster()
        self.pushed = Pushed(path, self.own)
        self.told: asyncio.Queue[ConfigurationResult] = asyncio.Queue()
        self.reload = Reload(self.pushed.config, self.roster, allow_files=lambda config: None)
        self.pushed.attach(self.reload, self.told.put_nowait)

    async def start(self) -> None:
        self.pushed.fill(self.roster, self.make)
        await self.pushed.start(self.roster, lambda: None)
        self.reload.config = self.pushed.config
        self.done.clear()

    def make(self, _kind: str, config: ListenerConfig) -> FakeListener:
        if config.network == "unmade":
            raise UserError("no such thing here")
        return FakeListener(config, self.done, self.broken)

    async def push(self, revision: int, toml: str | None) -> ConfigurationResult:
        self.pushed.wanted(Configuration(revision, toml))
        async with asyncio.timeout(20):
            return await self.told.get()

    @property
    def names(self) -> list[str]:
        return [listener.name for listener in self.roster.listeners if listener.is_listening]


class World:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "pushed.json"
        self.broken: set[str] = set()

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[Gateway]:
        gateway = Gateway(self.path, self.broken)
        await gateway.start()
        task = asyncio.create_task(gateway.pushed.run())
        try:
            yield gateway
        finally:
            task.cancel()
            await asyncio.wait((task,))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_sections_that_may_be_pushed_are_the_listeners() -> None:
    assert set(KINDS) == SECTIONS


def test_pushed_listeners_take_the_place_of_all_of_the_files_and_of_nothing_else() -> None:
    own = EdgeConfig(log_level="debug", mqtt=(MqttConfig("own", "quay"),))
    made = merged(own, section("a") + '[[udp]]\nname = "u"\nnetwork = "q"\nport = 9\nopen = true\n')
    assert [listener.name for _, listener in made.listeners] == ["a", "u"]
    assert made == msgspec.structs.replace(own, mqtt=made.mqtt, udp=made.udp)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ('log_level = "debug"\n', "log_level is not for the cloud to set"),
        ("[[mqtt]\n", "pushed configuration, line 1, column 7: not valid TOML"),
        (section("a") + "mistake = 1\n", r"pushed configuration, line 6: mqtt\[0\].mistake: no such setting"),
        (section("a") + section("a"), "two listeners are named 'a'"),
        ("x = " + "[" * 5000, "nested too deeply"),
        ("[[mqtt]]\nport = " + "9" * 5000, "not valid TOML"),
    ],
)
async def test_what_cannot_be_used_is_refused_and_changes_nothing(world: World, toml: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        merged(EdgeConfig(), toml)
    async with world.run() as gateway:
        result = await gateway.push(5, toml)
        assert (result.revision, result.refused) == (5, caught.value.message)
        assert (gateway.done, gateway.names, gateway.pushed.is_in_force) == ([], ["own"], False)


async def test_it_is_put_in_force_once_and_is_there_after_a_start_until_it_is_taken_back(world: World) -> None:
    async with world.run() as gateway:
        result = await gateway.push(5, section("own") + section("new"))
        assert [(one.name, one.what) for one in result.listeners] == [("own", "kept"), ("new", "started")]
        assert not result.refused
        gateway.done.clear()
        assert await gateway.push(5, section("own") + section("new")) == result
        assert (gateway.done, gateway.names) == ([], ["own", "new"])
    async with world.run() as gateway:
        assert (gateway.names, gateway.pushed.revision) == (["own", "new"], 5)
        assert gateway.pushed.result() == result
        assert not (await gateway.push(6, None)).refused
        assert gateway.names == ["own"]
    async with world.run() as gateway:
        assert (gateway.names, gateway.pushed.revision, gateway.pushed.is_in_force) == (["own"], 6, False)


async def test_one_listener_that_does_not_start_brings_all_of_them_back(world: World) -> None:
    world.broken.add("dry")
    async with world.run() as gateway:
        await gateway.push(5, section("a"))
        result = await gateway.push(6, section("b") + section("c", "dry"))
        assert result.refused == "listener 'c': cannot start on dry"
        assert {one.name: one.what for one in result.listeners} == {"a": "closed", "b": "started", "c": "not started"}
        assert gateway.names == ["a"]
    async with world.run() as gateway:
        assert gateway.names == ["a"], "the last that worked"
        assert gateway.pushed.result() == result


async def test_what_cannot_be_kept_is_not_put_in_force(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    async with world.run() as gateway:
        monkeypatch.setattr(module, "write_whole", full)
        result = await gateway.push(5, section("a"))
        assert "cannot be kept" in result.refused
        assert "No space left" in result.refused
        assert gateway.names == ["own"]
        monkeypatch.undo()
        assert not (await gateway.push(6, section("a"))).refused
        assert gateway.names == ["a"]


@pytest.mark.parametrize("trouble", ["does not start", "is not made", "is of another version", "damaged"])
async def test_a_start_that_cannot_use_it_goes_by_the_file_and_says_so(world: World, trouble: str) -> None:
    network = "unmade" if trouble == "is not made" else "dry"
    async with world.run() as gateway:
        await gateway.push(5, section("a", "wet"))
    written = world.path.read_text()
    if trouble == "is of another version":
        world.path.write_text(written.replace("port", "harbour"))
    elif trouble == "damaged":
        world.path.write_text(written[:-9])
    else:
        world.path.write_text(written.replace("wet", network))
        world.broken.add("dry")
    async with world.run() as gateway:
        assert (gateway.names, gateway.pushed.is_in_force) == (["own"], False)
        result = gateway.pushed.result()
        if trouble == "damaged":
            assert (result, gateway.pushed.revision) == (None, 0), "the cloud sends it again"
        else:
            assert result is not None
            assert (result.revision, "not used at the start" in result.refused) == (5, True)
        assert not (await gateway.push(7, section("a"))).refused
        assert gateway.names == ["a"]


async def test_the_file_read_again_leaves_pushed_listeners_and_is_what_a_taking_back_returns_to(world: World) -> None:
    async with world.run() as gateway:
        await gateway.push(5, section("a"))
        changed = msgspec.structs.replace(gateway.own, mqtt=(MqttConfig("other", "quay", "127.0.0.1", 0),))
        seen = await gateway.pushed.read(lambda: changed, "test")
        assert lines(seen)[-1] == "the listeners are those that the cloud pushed (revision 5), not the file's"
        assert gateway.names == ["a"]
        await gateway.push(6, None)
        assert gateway.names == ["other"]
        assert not (await gateway.pushed.read(lambda: gateway.own, "test")).note
        assert gateway.names == ["own"]


@pytest.mark.parametrize(
    ("figures", "shown"),
    [
        (PushedFigures(5, True, "", ""), "listeners pushed by the cloud, revision 5"),
        (
            PushedFigures(6, True, "port 1 is in use", "give it another"),
            "listeners pushed by the cloud; revision 6 of the cloud REFUSED: port 1 is in use; give it another",
        ),
        (PushedFigures(6, False, "no", ""), "listeners of the file; revision 6 of the cloud REFUSED: no"),
    ],
)
def test_the_status_says_whose_listeners_run_and_what_was_refused(figures: PushedFigures, shown: str) -> None:
    assert configuration_line(figures) == shown
