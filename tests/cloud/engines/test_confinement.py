from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from cloud.engines.confinement import Account, Confinement, Place, account_for, can_enter, can_read, readable
from tidegate.console import UserError

STRANGER = Account(uid=54_321, gid=54_321)


@pytest.fixture
def installation(tmp_path: Path) -> Path:
    """What an installer leaves behind under a strict umask."""
    (tmp_path / "site/engine/bin").mkdir(parents=True)
    (tmp_path / "site/engine/bin/server").write_text("#!/bin/sh\n")
    (tmp_path / "site/engine/share").write_text("data")
    for path in (tmp_path / "site").rglob("*"):
        path.chmod(0o700 if path.is_dir() or path.name == "server" else 0o600)
    return tmp_path / "site/engine"


def test_a_directory_that_only_its_owner_enters_hides_what_is_below(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir(mode=0o700)
    inner = tmp_path / "private" / "inner"
    inner.mkdir(mode=0o755)
    assert not can_enter(STRANGER, inner)
    assert can_enter(Account(os.getuid(), os.getgid()), inner)


def test_open_directories_are_used_as_they_are() -> None:
    assert can_enter(STRANGER, Path("/usr/bin/env"))
    confinement = Confinement.of(STRANGER, Path("/usr/share"), [Place(Path("/usr/bin/env"), "env")])
    assert not confinement.staged
    assert confinement.inside("env") == Path("/usr/bin/env")


def test_hidden_files_are_staged_where_the_names_say(tmp_path: Path, installation: Path) -> None:
    tmp_path.chmod(0o700)
    confinement = Confinement.of(STRANGER, tmp_path, [Place(installation, "site/engine")])
    assert confinement.staged
    assert confinement.inside("site/engine").parts[2:] == ("site", "engine")
    request = msgspec.json.decode(confinement.command(["x"])[-1])
    assert request["account"] == [STRANGER.uid, STRANGER.gid]
    assert [str(tmp_path), "data"] in request["binds"]


def test_nothing_is_staged_for_who_stays_who_he_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    confinement = Confinement.of(None, tmp_path, [])
    assert not confinement.staged
    assert msgspec.json.decode(confinement.command(["x"])[-1])["account"] is None


def test_an_installation_that_cannot_be_read_is_copied_once(tmp_path: Path, installation: Path) -> None:
    places = [Place(installation, "site/engine")]
    assert not can_read(STRANGER, installation)
    (copy,) = readable(STRANGER, places, tmp_path / "install")
    assert copy.name == "site/engine"
    assert can_read(STRANGER, copy.path)
    assert os.access(copy.path / "bin/server", os.X_OK)
    made = (copy.path / "share").stat().st_ino
    (again,) = readable(STRANGER, places, tmp_path / "install")
    assert (again.path / "share").stat().st_ino == made


def test_a_new_release_replaces_the_copy(tmp_path: Path, installation: Path) -> None:
    places = [Place(installation, "site/engine")]
    (old,) = readable(STRANGER, places, tmp_path / "install")
    (installation / "share").write_text("newer")
    os.utime(installation, ns=(0, installation.stat().st_mtime_ns + 1))
    (new,) = readable(STRANGER, places, tmp_path / "install")
    assert (new.path / "share").read_text() == "newer"
    assert not old.path.exists()


def test_a_readable_installation_is_not_copied(tmp_path: Path, installation: Path) -> None:
    places = [Place(installation, "site/engine")]
    assert readable(None, places, tmp_path / "install") == places
    assert not (tmp_path / "install").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_data_stays_with_the_user_that_has_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = account_for(data)
    assert first is not None
    assert first.uid != 0
    data.mkdir()
    os.chown(data, 12_345, 12_346)
    assert account_for(data) == Account(12_345, 12_346)


def test_data_of_somebody_else_is_refused_to_a_normal_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 4_321)
    with pytest.raises(UserError, match="belongs to another user"):
        account_for(tmp_path)
