"""The replica outlives a restart and every damage to its file."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest

from edge.replica import Replica
from sync.registry import Blueprint, Network, RegistryChange, StaleReplicaError
from tests.edge.site import registry


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "replica.db"


def reread(path: Path, project_id: str = "demo") -> RegistryChange:
    replica = Replica(path, project_id)
    replica.close()
    return replica.registry.snapshot()


async def test_what_was_applied_is_there_after_a_restart(path: Path) -> None:
    replica = Replica(path, "demo")
    await replica.apply(registry())
    network = Network("boat")
    await replica.apply(RegistryChange("demo", 7, 8, networks=(network,), gone_devices=(1,), gone_blueprints=("pump",)))
    replica.close()
    assert sorted(reread(path).networks, key=str) == sorted(replica.registry.networks.values(), key=str)
    assert set(replica.registry.networks) == {"quay", "boat"}
    assert reread(path).devices == reread(path).blueprints == ()
    assert reread(path).revision == 8


async def test_a_snapshot_takes_the_place_of_everything(path: Path) -> None:
    replica = Replica(path, "demo")
    await replica.apply(registry())
    await replica.apply(RegistryChange("demo", 0, 9, blueprints=(Blueprint("tank"),)))
    replica.close()
    assert reread(path) == RegistryChange("demo", 0, 9, blueprints=(Blueprint("tank"),))


async def test_a_change_that_skips_one_asks_for_a_snapshot(path: Path) -> None:
    replica = Replica(path, "demo")
    await replica.apply(registry())
    with pytest.raises(StaleReplicaError):
        await replica.apply(RegistryChange("demo", 8, 9))
    replica.close()
    assert reread(path).revision == 7


async def test_the_replica_of_another_project_is_not_used(path: Path) -> None:
    replica = Replica(path, "demo")
    await replica.apply(registry())
    replica.close()
    assert reread(path, "other").revision == 0


@pytest.mark.parametrize("damage", ["rubbish", "cut", "flipped", "schema", "body"])
async def test_a_damaged_file_is_dropped_and_written_anew(path: Path, damage: str) -> None:
    replica = Replica(path, "demo")
    await replica.apply(registry())
    replica.close()
    data = path.read_bytes()
    match damage:
        case "rubbish":
            path.write_bytes(b"not a database at all" * 100)
        case "cut":
            path.write_bytes(data[: len(data) // 2])
        case "flipped":
            path.write_bytes(data[:4096] + bytes(byte ^ 0xFF for byte in data[4096:]))
        case "schema":
            path.unlink()
            sqlite3.connect(path).execute("CREATE TABLE state (other TEXT)").connection.close()
        case "body":
            database = sqlite3.connect(path)
            with database:
                database.execute("UPDATE entry SET body = x'7b'")
            database.close()
    replica = Replica(path, "demo")
    assert replica.registry.revision == 0
    await replica.apply(registry(12))
    replica.close()
    assert reread(path) == registry(12)


async def test_a_disk_that_takes_nothing_costs_no_change(path: Path) -> None:
    replica = Replica(path, "demo")
    await replica.apply(registry())
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    await replica.apply(RegistryChange("demo", 7, 8, networks=(Network("boat"),)))
    assert "boat" in replica.registry.networks
    other.execute("ROLLBACK")
    other.close()
    await replica.apply(RegistryChange("demo", 8, 9, networks=(Network("reef"),)))
    replica.close()
    expected = {network.id: network for network in (*registry().networks, Network("boat"), Network("reef"))}
    assert {network.id: network for network in reread(path).networks} == expected


async def test_only_its_owner_may_read_it(path: Path) -> None:
    Replica(path, "demo").close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_folder_that_cannot_be_written_does_not_keep_the_gateway_from_starting(tmp_path: Path) -> None:
    replica = Replica(tmp_path / "missing" / "replica.db", "demo")
    await replica.apply(registry())
    assert replica.registry.revision == 7
    replica.close()
