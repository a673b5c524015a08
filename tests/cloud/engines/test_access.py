from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from cloud.engines.access import Access, free_port, is_free, with_free_port, write_private
from cloud.engines.reach import place_of
from cloud.engines.settings import PORTS_TRIED_MAX
from tidegate.console import UserError


def test_credentials_are_kept_for_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "access.json"
    access = with_free_port(None, 20_000)
    access.store(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Access.load(path) == access
    assert [entry.name for entry in tmp_path.iterdir()] == ["access.json"]


def test_damaged_credentials_are_said_to_be_damaged(tmp_path: Path) -> None:
    path = tmp_path / "access.json"
    path.write_text('{"port": 1')
    with pytest.raises(UserError, match=r"access\.json is damaged"):
        Access.load(path)


def test_a_link_laid_in_the_way_of_a_private_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    for name in ("conf", "conf.new"):
        (tmp_path / name).symlink_to(victim)
    write_private(tmp_path / "conf", b"ours", (os.getuid(), os.getgid()))
    assert (tmp_path / "conf").read_bytes() == b"ours"
    assert victim.read_text() == "untouched"


def test_two_engines_do_not_share_a_password() -> None:
    assert with_free_port(None, 20_000).password != with_free_port(None, 20_000).password


def test_the_kept_port_wins_until_it_is_taken_or_the_settings_change() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert not is_free(port)
        kept = Access(configured_port=port, port=port, password="p")
        moved = with_free_port(kept, port)
        assert moved.port > port
        assert moved.password == "p"
    assert with_free_port(moved, port) == moved, "the first choice is free again, but clients know the other"
    assert with_free_port(moved, moved.port + 1).configured_port == moved.port + 1


def test_a_port_that_somebody_listens_on_for_all_addresses_is_not_free() -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        assert not is_free(taken.getsockname()[1])


def test_the_search_for_a_port_ends() -> None:
    asked: list[int] = []

    def taken(port: int) -> bool:
        asked.append(port)
        return False

    with pytest.raises(UserError, match="are all taken"):
        free_port(65_500, taken)
    assert asked == list(range(65_500, 65_536))
    asked.clear()
    with pytest.raises(UserError):
        free_port(7432, taken)
    assert len(asked) == PORTS_TRIED_MAX


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://user:secret@db.example:5432/name", "db.example:5432"),
        ("nats://u:s@a:4222,nats://u:s@b:4222", "a:4222,b:4222"),
        ("nats://user:sec@ret@host:1", "host:1"),
        ("nonsense", "?"),
        ("nats://[bad", "?"),
    ],
)
def test_a_place_is_shown_without_credentials(url: str, place: str) -> None:
    assert place_of(url) == place
