"""A configuration changes while the gateway runs: who keeps running, who is started anew, and what is refused."""

from __future__ import annotations

import socket
from pathlib import Path

import msgspec
import pytest

from edge.cli.reload import lines
from edge.config import EdgeConfig, LinkConfig, LogConfig, MqttConfig, StatusConfig
from edge.listeners.config import ListenerConfig
from edge.listeners.roster import Change, Make, Roster
from edge.reload import Reload, Reloaded, different
from tests.edge.fake_listeners import FakeListener
from tidegate import logs
from tidegate.console import UserError


class World:
    """A gateway of listeners `a` and `b`, without the rest of it."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.broken: set[str] = set()
        self.files_for: list[EdgeConfig] = []
        self.config = EdgeConfig(mqtt=(section("a"), section("b")))
        self.roster = filled(self.config, self.make)
        self.reload = Reload(self.config, self.roster, allow_files=self.files_for.append)

    def make(self, _kind: str, config: ListenerConfig) -> FakeListener:
        return FakeListener(config, self.done, self.broken)

    @property
    def names(self) -> list[str]:
        return [listener.name for listener in self.roster.listeners]

    async def change(self, *sections: MqttConfig) -> dict[str, str]:
        seen = await self.reload.apply(msgspec.structs.replace(self.config, mqtt=sections), "test")
        assert not seen.refused, seen.refused
        return {change.name: change.what for change in seen.listeners}


def filled(config: EdgeConfig, make: Make) -> Roster:
    roster = Roster()
    roster.fill(config.listeners, make)
    return roster


def section(name: str, network: str = "quay", port: int = 0) -> MqttConfig:
    return MqttConfig(name, network, "127.0.0.1", port)


@pytest.fixture
async def world() -> World:
    made = World()
    await made.roster.start()
    made.done.clear()
    return made


async def test_only_what_changed_is_touched(world: World) -> None:
    kept = world.roster.listeners[0]
    held = world.roster.listeners
    assert await world.change(section("a"), section("b", "pier"), section("c")) == {
        "a": "kept", "b": "restarted", "c": "started",
    }  # fmt: skip
    assert world.done == ["close b on quay", "start b on pier", "start c on quay"]
    assert world.roster.listeners is held
    assert held[0] is kept
    assert world.names == ["a", "b", "c"]


async def test_what_is_no_longer_configured_is_closed(world: World) -> None:
    assert await world.change(section("b")) == {"b": "kept", "a": "closed"}
    assert (world.done, world.names) == (["close a on quay"], ["b"])


async def test_ports_may_move_from_one_to_another(world: World) -> None:
    await world.change(section("a", "pier"), section("b", "dock"))
    assert world.done[:2] == ["close a on quay", "close b on quay"]
    assert world.done[2:] == ["start a on pier", "start b on dock"]


async def test_one_that_does_not_start_goes_back_to_its_old_section(world: World) -> None:
    world.broken = {"pier"}
    assert await world.change(section("a", "pier"), section("b", "dock"), section("c", "pier")) == {
        "a": "rolled back", "b": "restarted", "c": "not started",
    }  # fmt: skip
    assert [(one.name, one.network_id, one.is_listening) for one in world.roster.listeners] == [
        ("a", "quay", True),
        ("b", "dock", True),
    ]
    seen = world.reload.last
    assert not seen.is_in_force
    assert seen.listeners[0].reason == "cannot start on pier"


async def test_what_did_not_start_is_tried_again_by_the_next_reload(world: World) -> None:
    world.broken = {"pier"}
    await world.change(section("a", "pier"), section("b"))
    world.broken = set()
    assert (await world.change(section("a", "pier"), section("b")))["a"] == "restarted"


async def test_one_that_cannot_go_back_either_is_seen_not_to_listen(world: World) -> None:
    world.broken = {"pier", "quay"}
    assert await world.change(section("a", "pier"), section("b")) == {"a": "failed", "b": "kept"}
    assert [one.is_listening for one in world.roster.listeners] == [False, True]


async def test_at_the_start_it_is_all_or_none() -> None:
    world = World()
    world.config = EdgeConfig(mqtt=(section("a"), section("b", "pier")))
    world.broken = {"pier"}
    roster = filled(world.config, world.make)
    with pytest.raises(UserError, match="cannot start on pier"):
        await roster.start()
    assert world.done == ["start a on quay", "close a on quay"]


async def test_a_port_of_somebody_else_is_found_before_anything_is_closed(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        config = msgspec.structs.replace(world.config, mqtt=(section("a", port=port), section("b", "pier")))
        seen = await world.reload.apply(config, "test")
    assert seen.refused.startswith(f"listener 'a': tcp 127.0.0.1:{port}: in use by ")
    assert world.done == []
    assert world.reload.config is world.config


async def test_a_port_that_the_gateway_holds_itself_is_no_obstacle() -> None:
    with socket.create_server(("0.0.0.0", 0)) as held_by_a:
        port = held_by_a.getsockname()[1]
        world = World()
        world.config = EdgeConfig(mqtt=(MqttConfig("a", "quay", "0.0.0.0", port),))
        world.roster = filled(world.config, world.make)
        world.reload = Reload(world.config, world.roster, allow_files=world.files_for.append)
        assert await world.change(section("a", port=port)) == {"a": "restarted"}


async def test_a_certificate_that_cannot_be_used_is_found_before_anything_is_closed(
    world: World, tmp_path: Path
) -> None:
    wrong = MqttConfig("a", "quay", "127.0.0.1", 0, tls_cert=str(tmp_path / "no.pem"), tls_key=str(tmp_path / "no.key"))
    seen = await world.reload.apply(msgspec.structs.replace(world.config, mqtt=(wrong,)), "test")
    assert "cannot use tls_cert" in seen.refused
    assert "readable PEM files" in seen.remedy
    assert world.done == []


async def test_a_file_that_cannot_be_used_is_refused_and_counted(world: World) -> None:
    def load() -> EdgeConfig:
        raise UserError("edge.toml, line 3: log.max_bytes: 12 is below the minimum", "raise it")

    seen = await world.reload.read(load, "SIGHUP")
    assert (seen.number, seen.origin, seen.remedy) == (1, "SIGHUP", "raise it")
    assert "line 3: log.max_bytes" in seen.refused
    assert world.done == []
    assert (await world.reload.read(lambda: world.config, "SIGHUP")).number == 2


async def test_what_needs_a_restart_is_named_until_then(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    levels: list[str] = []
    monkeypatch.setattr(logs, "configure", lambda *, level: levels.append(level))
    config = msgspec.structs.replace(
        world.config,
        log_level="debug",
        log=LogConfig(max_bytes=1_000_000_000),
        link=LinkConfig(url="wss://other.example/link/v1"),
        data_dir=Path("/elsewhere"),
    )
    for _ in range(2):
        seen = await world.reload.apply(config, "test")
        assert sorted(seen.needs_restart) == ["data_dir", "link.url", "log.max_bytes"]
        assert seen.is_in_force
    assert levels == ["debug"]
    assert world.reload.config.log_level == "debug"
    assert world.reload.config.log == world.config.log
    assert world.files_for == [config, config]


def test_settings_that_take_effect_at_once_are_not_among_them() -> None:
    old = EdgeConfig()
    assert different(old, msgspec.structs.replace(old, log_level="debug", mqtt=(section("a"),))) == []
    assert different(old, msgspec.structs.replace(old, status=StatusConfig(port=1))) == ["status.port"]


async def test_whoever_names_the_ports_is_told(world: World) -> None:
    told: list[list[str]] = []
    world.reload.done = lambda: told.append(world.names)
    await world.change(section("a"), section("b"), section("c"))
    assert told == [["a", "b", "c"]]


async def test_a_renewed_certificate_is_a_change(tmp_path: Path) -> None:
    done: list[str] = []
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("old")
    tls = MqttConfig("a", "quay", tls_cert=str(tmp_path / "cert.pem"), tls_key=str(tmp_path / "key.pem"))
    roster = filled(EdgeConfig(mqtt=(tls,)), lambda _, config: FakeListener(config, done, set()))
    assert [change.what for change in await roster.change_to([("mqtt", tls)])] == ["kept"]
    (tmp_path / "cert.pem").write_text("renewed")
    assert [change.what for change in await roster.change_to([("mqtt", tls)])] == ["restarted"]


def test_what_is_shown() -> None:
    changes = [Change("a", "kept"), Change("b", "rolled back", "the port is in use")]
    assert lines(Reloaded(1, "SIGHUP", "", "", changes, ["log.max_bytes"])) == [
        "a: kept",
        "b: rolled back: the port is in use",
        "takes effect at the next start: log.max_bytes",
    ]
    assert lines(Reloaded(1)) == ["nothing to change"]
